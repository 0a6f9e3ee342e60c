"""Outcomes as JUnit XML.

Source: the schema for JUnit's XML of Apache Ant (windyroad/JUnit-Schema), which knows neither warnings nor output of a
single test: what is no failure and yet worth reading goes to the output of the suite.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element, SubElement

from qm.check.goal import Answer, Judged
from qm.check.outcome import Checked
from qm.report import Finding, Level, now

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped."""


def junit(outcomes: Sequence[Checked], *, allow_unsure: bool = False) -> bytes:
    """One suite a report, one test a goal and a finding."""
    suites = Element("testsuites")
    for index, outcome in enumerate(outcomes):
        _add_suite(suites, index, outcome, allow_unsure=allow_unsure)
    ET.indent(suites)
    made: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return made + b"\n"


def _add_suite(suites: Element, index: int, outcome: Checked, *, allow_unsure: bool) -> None:
    suite = SubElement(suites, "testsuite", name=_text(outcome.name), package="qm.check", id=str(index))
    properties = SubElement(suite, "properties")
    for name, value in _facts(outcome):
        SubElement(properties, "property", name=name, value=_text(value))
    if outcome.problem is not None:
        case = _case(suite, outcome, "report")
        _fail(case, "error", outcome.problem.seen, outcome.problem.next, "no report")
    for goal in outcome.goals:
        _add_goal(_case(suite, outcome, goal.goal), goal, allow_unsure=allow_unsure)
    for finding in outcome.findings:
        case = _case(suite, outcome, f"audit: {finding.check}" + (f" [{finding.layer}]" if finding.layer else ""))
        if finding.level is Level.BROKEN:
            _fail(case, "failure", finding.seen, finding.next, finding.level)
    SubElement(suite, "system-out").text = _text("\n".join(_remarks(outcome)))
    SubElement(suite, "system-err")
    for name, kind in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(len(list(suite.iter(kind)))))
    suite.set("time", "0")
    # The schema's time has no zone.
    suite.set("timestamp", now()[:19])
    suite.set("hostname", platform.node() or "localhost")


def _add_goal(case: Element, goal: Judged, *, allow_unsure: bool) -> None:
    if goal.answer is Answer.NO_FIGURE:
        _fail(case, "error", goal.seen, goal.next, goal.answer)
    elif goal.answer is Answer.CANNOT_TELL and allow_unsure:
        SubElement(case, "skipped", message=_text(goal.seen))
    elif goal.answer is not Answer.MET:
        _fail(case, "failure", goal.seen, goal.next, goal.answer)


def _case(suite: Element, outcome: Checked, name: str) -> Element:
    return SubElement(suite, "testcase", classname=_text(outcome.name), name=_text(name), time="0")


def _fail(case: Element, kind: str, seen: str, todo: str, sort: str) -> None:
    SubElement(case, kind, message=_text(seen), type=sort).text = _text(f"{seen}\n{todo}".strip())


def _facts(outcome: Checked) -> Iterator[tuple[str, str]]:
    yield "report", outcome.report
    if outcome.artifact is not None:
        yield "sha256", outcome.artifact.sha256


def _remarks(outcome: Checked) -> Iterator[str]:
    """What is met with its figure, and what is no failure and yet worth reading."""
    for goal in outcome.goals:
        yield f"{goal.goal}: {goal.answer}: {goal.seen}"
    for finding in outcome.findings:
        yield f"audit: {finding.check}: {finding.level}: {_with_layer(finding)}"
    yield from (f"note: {note}" for note in outcome.notes)


def _with_layer(finding: Finding) -> str:
    return f"{finding.seen} [{finding.layer}]" if finding.layer else finding.seen


def _text(value: str) -> str:
    return FORBIDDEN.sub("\ufffd", value)

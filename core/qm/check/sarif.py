"""Outcomes as SARIF.

Source: OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0", 2020; sections 3.27.9 and 3.27.10 on
kind and level: a result that is no failure has the level "none".
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qm.check.goal import Answer, Judged
from qm.check.outcome import Checked, failure
from qm.report import Finding, Level

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

_OF_FINDING = {
    Level.OK: ("pass", "none"),
    Level.NOTE: ("fail", "note"),
    Level.WARNING: ("fail", "warning"),
    Level.BROKEN: ("fail", "error"),
}
_OF_GOAL = {
    Answer.MET: ("pass", "none"),
    Answer.MISSED: ("fail", "error"),
    Answer.CANNOT_TELL: ("fail", "warning"),
    Answer.NO_FIGURE: ("fail", "error"),
}
_UNSURE = ("open", "none")


def sarif(outcomes: Sequence[Checked], *, allow_unsure: bool = False) -> dict[str, Any]:
    """One run, one result a goal and a finding, each at the artifact that it is about."""
    # Several reports may be about one artifact, and the list of artifacts must not have any twice.
    artifacts: list[dict[str, Any]] = []
    for outcome in outcomes:
        if (artifact := _artifact(outcome)) not in artifacts:
            artifacts.append(artifact)
    results = [
        result
        for outcome in outcomes
        for result in _results(artifacts.index(_artifact(outcome)), outcome, allow_unsure=allow_unsure)
    ]
    rules = sorted({r["ruleId"] for r in results})
    error = failure(outcomes, allow_unsure=allow_unsure)
    driver = {
        "name": "qm",
        "semanticVersion": importlib.metadata.version("quantized-model"),
        "rules": [{"id": rule, "shortDescription": {"text": _description(rule)}} for rule in rules],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True, "exitCode": error.exit_code if error else 0}],
        "artifacts": artifacts,
        "results": [{**result, "ruleIndex": rules.index(result["ruleId"])} for result in results],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def uri(path: str) -> str:
    """A path as a URI reference: relative where the path is."""
    place = Path(path)
    return place.as_uri() if place.is_absolute() else quote(os.fsencode(place.as_posix()))


def _results(index: int, outcome: Checked, *, allow_unsure: bool) -> Iterator[dict[str, Any]]:
    location = {"physicalLocation": {"artifactLocation": {"uri": uri(outcome.name), "index": index}}}
    if outcome.problem is not None:
        text = _message(outcome.problem.seen, outcome.problem.next)
        yield _result("report", ("fail", "error"), text, location)
    for goal in outcome.goals:
        unsure = allow_unsure and goal.answer is Answer.CANNOT_TELL
        text = _message(f"{goal.goal}: {goal.answer}: {goal.seen}", goal.next)
        yield _result(_rule_of_goal(goal), _UNSURE if unsure else _OF_GOAL[goal.answer], text, location)
    for finding in outcome.findings:
        yield _of_finding(finding, location)
    for note in outcome.notes:
        yield _result("report", ("fail", "note"), note, location)


def _of_finding(finding: Finding, location: dict[str, Any]) -> dict[str, Any]:
    where = f" [{finding.layer}]" if finding.layer else ""
    if finding.layer:
        location = {**location, "logicalLocations": [{"fullyQualifiedName": finding.layer}]}
    text = _message(finding.seen + where, finding.next)
    return _result(f"audit/{finding.check}", _OF_FINDING[finding.level], text, location)


def _result(rule: str, weight: tuple[str, str], text: str, location: dict[str, Any]) -> dict[str, Any]:
    kind, level = weight
    return {"ruleId": rule, "kind": kind, "level": level, "message": {"text": text}, "locations": [location]}


def _artifact(outcome: Checked) -> dict[str, Any]:
    location = {"location": {"uri": uri(outcome.name)}}
    if outcome.artifact is None:
        return location
    return {**location, "length": outcome.artifact.nbytes, "hashes": {"sha-256": outcome.artifact.sha256}}


def _rule_of_goal(goal: Judged) -> str:
    return f"goal/{goal.goal.split()[0].removeprefix('--')}"


def _description(rule: str) -> str:
    kind, _, name = rule.partition("/")
    return {"goal": f"The goal --{name} is met", "audit": f"The audit's check {name!r} holds"}.get(
        kind, "The report can be held against goals, and belongs to the artifact"
    )


def _message(seen: str, todo: str) -> str:
    return f"{seen} {todo}" if todo and seen.endswith(".") else f"{seen}. {todo}" if todo else seen

"""JUnit XML and SARIF, read back."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from qm.check.goal import Answer, Judged
from qm.check.junit import junit
from qm.check.outcome import Checked, Problem, failure
from qm.check.sarif import sarif, uri
from qm.report import File, Finding, Level

NAME = "a/net <1> & co.toy"
FILE = File(path=NAME, format="toy", nbytes=10, sha256="0" * 64)
ODD = 'a "quoted" <layer> & \x1b[1m\x00 \ud800 é'


def judged(answer, name="max-size"):
    return Judged(goal=f"--{name} 1kB", answer=answer, seen=f"seen {ODD}", value=1.0, next="Do this.")


def finding(level, layer=""):
    return Finding(check="schemes", level=level, seen=f"found {ODD}", layer=layer, next="Do that.")


CHECKED = Checked(
    report="a/net.toy.report.json",
    artifact=FILE,
    accepted=False,
    goals=tuple(judged(answer) for answer in Answer),
    findings=(*map(finding, Level), finding(Level.BROKEN, layer="block/[0]:w")),
    notes=("a note",),
)
LOST = Checked(report="gone.json", problem=Problem(seen="report 'gone.json' cannot be read", next="Check the path."))

REQUIRED = {
    "testsuites": set(),
    "testsuite": {"name", "package", "id", "timestamp", "hostname", "tests", "failures", "errors", "time"},
    "properties": set(),
    "property": {"name", "value"},
    "testcase": {"name", "classname", "time"},
    "failure": {"type"},
    "error": {"type"},
    "skipped": set(),
    "system-out": set(),
    "system-err": set(),
}
"""Elements of the schema, with their required attributes."""
ALLOWED = {"testsuite": {"skipped"}, "failure": {"message"}, "error": {"message"}, "skipped": {"message"}}


def suites(*outcomes, allow_unsure=False):
    return ET.fromstring(junit(outcomes, allow_unsure=allow_unsure))


def case(suite, name):
    (found,) = [c for c in suite.iter("testcase") if c.get("name") == name]
    return found


def test_junit_has_the_elements_and_attributes_of_the_schema_and_no_others():
    for element in suites(CHECKED, LOST).iter():
        required = REQUIRED[element.tag]
        assert required <= set(element.keys()) <= required | ALLOWED.get(element.tag, set()), element.tag


def test_junit_has_its_elements_in_the_order_of_the_schema():
    for suite in suites(CHECKED, LOST):
        tags = "".join(f"<{child.tag}>" for child in suite)
        assert re.fullmatch("<properties>(<testcase>)*<system-out><system-err>", tags)
        assert all(len(c) <= 1 for c in suite.iter("testcase"))


def test_junit_attributes_have_the_types_of_the_schema():
    for index, suite in enumerate(suites(CHECKED, LOST)):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
        assert suite.get("id") == str(index)
        assert suite.get("hostname")
        float(suite.get("time"))


def test_junit_counts_its_cases():
    first, second = suites(CHECKED, LOST)
    counts = ("tests", "failures", "errors", "skipped")
    # Four answers and five findings; missed, cannot tell and two broken fail, the lacking figure is an error.
    assert [int(first.get(c)) for c in counts] == [9, 4, 1, 0]
    assert [int(second.get(c)) for c in counts] == [1, 0, 1, 0]
    for suite in (first, second):
        assert [len(list(suite.iter(tag))) for tag in ("testcase", "failure", "error", "skipped")] == [
            int(suite.get(c)) for c in counts
        ]


def test_junit_skips_what_cannot_be_told_where_that_is_allowed():
    (suite,) = suites(CHECKED, allow_unsure=True)
    assert suite.get("skipped") == "1"
    assert suite.get("failures") == "3"


def test_junit_keeps_odd_text_but_for_what_xml_cannot_hold():
    (suite,) = suites(CHECKED)
    (found, *_) = suite.iter("failure")
    expected = ODD.replace("\x1b", "\ufffd").replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    assert found.get("message") == f"seen {expected}"
    assert found.text == f"seen {expected}\nDo this."
    assert suite.get("name") == NAME


def test_junit_names_a_finding_by_check_and_layer():
    (suite,) = suites(CHECKED)
    assert case(suite, "audit: schemes [block/[0]:w]").find("failure").get("type") == "broken"


def test_junit_puts_warnings_and_notes_into_the_output():
    (suite,) = suites(CHECKED)
    lines = suite.findtext("system-out").splitlines()
    assert any(line.startswith("audit: schemes: warning: found") for line in lines)
    assert lines[-1] == "note: a note"


def test_junit_says_what_it_was_about():
    (suite,) = suites(CHECKED)
    told = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert told == {"report": "a/net.toy.report.json", "sha256": "0" * 64}


def run(*outcomes, allow_unsure=False):
    made = sarif(outcomes, allow_unsure=allow_unsure)
    (only,) = made["runs"]
    return only


def results(rule, **options):
    return [r for r in run(CHECKED, LOST, **options)["results"] if r["ruleId"] == rule]


def test_sarif_has_what_the_specification_requires():
    made = sarif([CHECKED, LOST])
    assert made["version"] == "2.1.0"
    assert made["$schema"].endswith("sarif-schema-2.1.0.json")
    (only,) = made["runs"]
    assert only["tool"]["driver"]["name"] == "qm"
    assert all("executionSuccessful" in invocation for invocation in only["invocations"])
    for result in only["results"]:
        assert result["message"]["text"]
        assert result["kind"] in {"pass", "open", "informational", "notApplicable", "review", "fail"}
        assert result["level"] in {"none", "note", "warning", "error"}
        assert result["kind"] == "fail" or result["level"] == "none"


def test_sarif_results_refer_to_their_rule_and_artifact():
    only = run(CHECKED, LOST)
    for result in only["results"]:
        assert only["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        (location,) = result["locations"]
        place = location["physicalLocation"]["artifactLocation"]
        assert only["artifacts"][place["index"]]["location"]["uri"] == place["uri"]


def test_sarif_rules_and_artifacts_are_listed_once():
    only = run(CHECKED, CHECKED, LOST)
    rules = [rule["id"] for rule in only["tool"]["driver"]["rules"]]
    assert rules == ["audit/schemes", "goal/max-size", "report"]
    assert [a["location"]["uri"] for a in only["artifacts"]] == ["a/net%20%3C1%3E%20%26%20co.toy", "gone.json"]


def test_sarif_levels_follow_the_answer():
    levels = [(r["kind"], r["level"]) for r in results("goal/max-size")]
    assert levels == [("pass", "none"), ("fail", "error"), ("fail", "warning"), ("fail", "error")]


def test_sarif_leaves_open_what_may_stay_unsure():
    assert ("open", "none") in [(r["kind"], r["level"]) for r in results("goal/max-size", allow_unsure=True)]


def test_sarif_levels_follow_the_finding():
    levels = [r["level"] for r in results("audit/schemes")]
    assert levels == ["none", "note", "warning", "error", "error"]


def test_sarif_names_the_layer():
    *_, last = results("audit/schemes")
    assert last["locations"][0]["logicalLocations"] == [{"fullyQualifiedName": "block/[0]:w"}]


def test_sarif_tells_the_exit_code():
    assert run(CHECKED)["invocations"] == [{"executionSuccessful": True, "exitCode": failure([CHECKED]).exit_code}]
    assert run()["invocations"][0]["exitCode"] == 0


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a b/é.onnx", "a%20b/%C3%A9.onnx"), ("/x y.onnx", "file:///x%20y.onnx"), ("c:odd", "c%3Aodd")],
)
def test_a_path_becomes_a_uri(path, expected):
    assert uri(path) == expected

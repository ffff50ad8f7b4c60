"""The record of `edgeft compare` as Markdown and as JUnit."""

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from edgeft.report.junit import junit
from edgeft.report.summary import markdown_summary


@pytest.fixture
def compared() -> dict[str, Any]:
    """Give a comparison whose latency fails and whose accuracy passes."""
    accuracy = {"name": "accuracy", "verdict": "PASS", "value": 0.1, "interval": [-0.2, 0.4], "limit": 0.5}
    latency = {"name": "latency", "verdict": "FAIL", "value": 1.25, "interval": [1.2, 1.31], "limit": 1.05}
    return {
        "schema": 1,
        "kind": "compare",
        "name": "after against before",
        "run": "r1",
        "status": "failed",
        "exit_code": 6,
        "gates": [
            {**accuracy, "unit": "pp", "n": 900, "detail": "3 of 900 decisions changed", "exit_code": 5},
            {**latency, "unit": "ratio", "n": 18, "detail": "12.5 ms against 10 ms", "exit_code": 6},
        ],
        "notes": ["a first note", "a second <b>note</b>"],
        "versions": {"edgeft": "0.1.0"},
        "started": "2024-01-01T00:00:00Z",
        "seconds": 12.5,
        "seed": 0,
    }


def test_markdown_says_what_was_compared_and_what_came_out(compared: dict[str, Any]) -> None:
    text = markdown_summary(compared)
    assert text.startswith("## after against before: FAIL\n\n1 of 2 gates fails: latency.\n")
    assert "| accuracy | PASS | 0.10 pp |" in text
    assert "| latency | FAIL | 1.250 |" in text
    assert "- **latency**: 12.5 ms against 10 ms" in text
    assert "decisions changed" not in text  # what passed needs no details


def test_markdown_tells_the_notes_and_nothing_about_an_artifact(compared: dict[str, Any]) -> None:
    text = markdown_summary(compared)
    assert "- a first note\n- a second &lt;b&gt;note&lt;/b&gt;" in text
    for absent in ("fp32", "not measured", "size", "None"):
        assert absent not in text
    compared["notes"] = []
    assert "note" not in markdown_summary(compared)


def test_junit_counts_a_comparison(compared: dict[str, Any]) -> None:
    compared["gates"].append({**compared["gates"][0], "name": "size", "verdict": "INCONCLUSIVE"})
    root = ET.fromstring(junit(compared))  # noqa: S314 - our own document
    (suite,) = root.findall("testsuite")
    assert suite.get("name") == "edgeft after against before"
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped", "time")}
    assert counts == {"tests": "3", "failures": "1", "errors": "0", "skipped": "1", "time": "12.5"}
    assert [case.get("name") for case in suite.findall("testcase")] == ["accuracy", "latency", "size"]
    (failure,) = suite.iter("failure")
    assert failure.text == "12.5 ms against 10 ms"
    assert failure.get("type") == "FAIL"

"""Annotations as GitHub's runner reads them."""

from typing import Any

import pytest

from edgeft.core.record import Verdict
from edgeft.report.github import annotations


def gate(verdict: Verdict, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a gate
    known = {"name": "latency", "value": 1.2, "interval": [1.1, 1.3], "limit": 1.05, "unit": "ratio", "n": 9}
    return {**known, "verdict": verdict, "detail": "too slow", **fields}


def record(*gates: dict[str, Any], name: str = "after against before") -> dict[str, Any]:
    return {"kind": "compare", "name": name, "gates": list(gates)}


def test_what_fails_is_an_error_and_what_is_undecided_a_warning() -> None:
    gates = (gate(Verdict.FAIL), gate(Verdict.PASS, name="size"), gate(Verdict.INCONCLUSIVE, name="accuracy"))
    failed, undecided = annotations(record(*gates)).splitlines()
    assert failed.startswith("::error title=edgeft after against before%3A latency FAIL::1.2")
    assert failed.endswith(". too slow")
    assert undecided.startswith("::warning title=edgeft after against before%3A accuracy INCONCLUSIVE::")


def test_what_passes_says_nothing() -> None:
    assert annotations(record(gate(Verdict.PASS))) == ""
    assert annotations(record()) == ""


def test_a_message_cannot_end_its_line() -> None:
    (line,) = annotations(record(gate(Verdict.FAIL, detail="50% slow\r\n::error::mine"))).splitlines()
    assert line.endswith(". 50%25 slow%0D%0A::error::mine")


def test_a_title_cannot_end_its_property() -> None:
    (line,) = annotations(record(gate(Verdict.FAIL, name="p99, 5%\nat: 10"), name="a::b,file=c")).splitlines()
    title, _, message = line.removeprefix("::error title=").partition("::")
    assert title == "edgeft a%3A%3Ab%2Cfile=c%3A p99%2C 5%25%0Aat%3A 10 FAIL"
    assert message.startswith("1.2")


@pytest.mark.parametrize("text", ["100%", "%25", "a%0Ab"])
def test_a_percent_sign_is_read_back_as_one(text: str) -> None:
    (line,) = annotations(record(gate(Verdict.FAIL, detail=text))).splitlines()
    told = line.rpartition(". ")[2]
    assert told.replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%") == text

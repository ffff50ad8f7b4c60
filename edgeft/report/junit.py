"""Gates as a JUnit test suite, the format that every CI server reads.

One test case for each gate: FAIL is a failure, INCONCLUSIVE is skipped (under --strict, where the run's exit code says
that it counts, a failure).
"""

from collections.abc import Mapping

from edgeft.core.record import Verdict
from edgeft.core.stage import Json
from edgeft.report.markup import Content, Markup, element, join
from edgeft.report.numbers import MISSING
from edgeft.report.reading import View, bundle_name
from edgeft.report.sentences import gate_numbers

_STRICT_EXIT = 7


def junit(record: Mapping[str, Json]) -> str:
    """Return the record's gates as a JUnit XML document."""
    view = View(record)
    strict = view.number("exit_code") == _STRICT_EXIT
    found = view.views("gates")
    outcomes = [_outcome(gate.text("verdict"), strict=strict) for gate in found]
    cases = [_case(gate, outcome) for gate, outcome in zip(found, outcomes, strict=True)]
    counts: dict[str, str | float | None] = {
        "name": f"edgeft {bundle_name(view)}",
        "tests": len(cases),
        "failures": outcomes.count("failure"),
        "errors": 0,
        "skipped": outcomes.count("skipped"),
        "time": view.number("seconds") or 0.0,
    }
    suite = element("testsuite", _properties(view), *cases, timestamp=view.text("started")[:19] or None, **counts)
    return join(Markup('<?xml version="1.0" encoding="UTF-8"?>\n'), element("testsuites", suite, **counts), "\n")


def _outcome(verdict: str, *, strict: bool) -> str | None:
    if verdict == Verdict.PASS:
        return None
    return "failure" if verdict == Verdict.FAIL or strict else "skipped"


def _case(gate: View, outcome: str | None) -> Markup:
    numbers, detail = gate_numbers(gate), gate.text("detail")
    told: Content = None
    if outcome == "failure":
        told = element("failure", detail, message=f"{gate.text('verdict')}: {numbers}", type=gate.text("verdict"))
    elif outcome == "skipped":
        told = element("skipped", message=f"{gate.text('verdict') or MISSING}: {numbers}. {detail}")
    out = element("system-out", f"{numbers}. {detail}")
    return element("testcase", told, out, classname="edgeft.gates", name=gate.text("name"), time=0)


def _properties(view: View) -> Markup:
    versions = view.at("versions").data
    pairs = [("run", view.text("run")), ("status", view.text("status")), ("seed", view.text("seed"))]
    pairs += [(f"version {name}", str(version)) for name, version in versions.items()]
    return element("properties", *(element("property", name=name, value=value) for name, value in pairs if value))

"""Gates as GitHub Actions reads them: one annotation for each gate that did not pass."""

from collections.abc import Mapping

from edgeft.core.record import Verdict
from edgeft.core.stage import Json
from edgeft.report.reading import View, bundle_name
from edgeft.report.sentences import gate_numbers

_LEVELS = {Verdict.FAIL: "error", Verdict.INCONCLUSIVE: "warning"}


def annotations(record: Mapping[str, Json]) -> str:
    """Return workflow commands, one line each, ended by a newline; "" where every gate passed."""
    view = View(record)
    lines = []
    for gate in view.views("gates"):
        verdict = gate.text("verdict")
        if verdict != Verdict.PASS:
            level = _LEVELS.get(Verdict(verdict), "notice")
            title = _property(f"edgeft {bundle_name(view)}: {gate.text('name')} {verdict}")
            told = f"{gate_numbers(gate)}. {gate.text('detail')}"
            lines.append(f"::{level} title={title}::{_data(told)}\n")
    return "".join(lines)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")

"""How scores become decisions: the thresholds that ship, and the recall that others would give."""

from edgeft.report.blocks import note, table
from edgeft.report.markup import Markup, element, join
from edgeft.report.numbers import fixed, percent
from edgeft.report.reading import View
from edgeft.report.sections.confusion import rate_cells
from edgeft.report.sentences import GATE_INTERVAL


def decision(record: View) -> Markup | None:
    """Return the rule and its alternatives; None where no class is that of good parts."""
    found = record.at("verify", "decision")
    points = found.views("operating_points")
    if not points:
        return None
    measured = [point for point in points if not point.text("reason")]
    rows = [
        [
            percent(point.number("max_overkill")),
            fixed(point.number("stop_at") or 0.0, 4),
            *rate_cells(point.at("recall"))[:2],
            *rate_cells(point.at("overkill")),
        ]
        for point in measured
    ]
    header = [
        "overkill asked",
        "threshold",
        "recall of bad parts",
        GATE_INTERVAL,
        "overkill found",
        GATE_INTERVAL,
        "of",
    ]
    caption = "Recall at a fixed false-positive rate: thresholds fitted on validation, measured on the test split"
    missing = [
        note(f"{percent(point.number('max_overkill'))}: {point.text('reason')}.")
        for point in points
        if point.text("reason")
    ]
    return join(element("h3", "Decision"), note(_rule(found)), table(caption, header, rows) if rows else None, *missing)


def _rule(found: View) -> str:
    stop, sure, ok = found.number("stop_at"), found.number("sure_at"), found.text("ok")
    if stop is None or sure is None:
        return "The class with the highest score is decided. With decide.method: threshold a limit is held instead."
    words = f"A part is {ok} where 1 - score of {ok} is below {fixed(stop, 4)}"
    if stop == sure:
        return f"{words}, else it is stopped."
    return f"{words}; from there to {fixed(sure, 4)} it is for review by a person, above it is stopped."

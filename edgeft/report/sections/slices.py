"""Accuracy by slice of the data: does it decide as well for each camera, supplier or shift."""

from collections.abc import Sequence

from edgeft.report.blocks import name, note, table
from edgeft.report.markup import Content, Markup, element, join
from edgeft.report.numbers import count, percent, span
from edgeft.report.reading import View
from edgeft.report.sections.confusion import rate_cells
from edgeft.report.sentences import GATE_INTERVAL, METRIC_INTERVAL


def slices(blocks: Sequence[tuple[str, View]]) -> Markup | None:
    """Return a table for each slice, with the gap between its best and its worst value; None where none is named."""
    named = list(blocks[-1][1].at("slices").data) if blocks else []
    return join(*(_slice(blocks, each) for each in named)) if named else None


def _slice(blocks: Sequence[tuple[str, View]], title: str) -> Markup:
    rows: list[list[Content]] = []
    gaps = []
    inspected = False
    for candidate, block in blocks:
        found = block.at("slices", title)
        for row in found.views("values"):
            interval = row.pair("accuracy_interval")
            cells = [percent(row.number("accuracy")), f"{span(interval, 1, 100)} %" if interval else "no interval"]
            if row.at("escape"):
                inspected = True
                cells += [rate_cells(row.at(kind))[i] for kind in ("escape", "overkill") for i in (0, 2)]
            rows.append([name(row.text("value")), candidate, *cells, count(row.number("n"))])
        if gap := found.at("gap"):
            gaps.append(note(_gap(candidate, gap)))
    rows.sort(key=lambda cells: str(cells[0]))
    rates = ["escape", "of", "overkill", "of"] if inspected else []
    header = [title, "model", "accuracy", METRIC_INTERVAL, *rates, "images"]
    return join(element("h3", "By ", name(title)), table(f"Test split, by {title}", header, rows, words=(1,)), *gaps)


def _gap(candidate: str, gap: View) -> str:
    interval = (gap.number("low") or 0.0, gap.number("high") or 0.0)
    return (
        f"{candidate}: {gap.text('worst')} lies {percent(gap.number('value'))} behind {gap.text('best')} "
        f"({GATE_INTERVAL} {span(interval, 1, 100)} %, for all pairs at once)."
    )

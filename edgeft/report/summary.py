"""A run in a screenful: Markdown for a pull request or a CI job page, plain text for a terminal or a log."""

from collections.abc import Mapping, Sequence

from edgeft.core.stage import Json
from edgeft.report import markdown
from edgeft.report.markup import writable
from edgeft.report.numbers import count, duration, quantity, quantity_span
from edgeft.report.reading import View, bundle_name, is_compare
from edgeft.report.sentences import (
    GATE_INTERVAL,
    accuracy_sentence,
    latency_sentence,
    size_sentence,
    status_sentence,
    status_verdict,
)

_GATE_HEADER = ("gate", "verdict", "value", GATE_INTERVAL, "limit", "n")


def markdown_summary(record: Mapping[str, Json]) -> str:
    """Return the run as Markdown: verdict, the three findings, gates, stages."""
    view = View(record)
    findings = (
        view.names("notes")
        if is_compare(view)
        else [accuracy_sentence(view), latency_sentence(view), size_sentence(view)]
    )
    stages = [
        (stage.text("name"), "reused" if stage.flag("reused") else "ran", duration(stage.number("seconds")))
        for stage in view.views("stages")
    ]
    details = [
        f"- **{markdown.escape(gate.text('name'))}**: {markdown.escape(gate.text('detail'))}"
        for gate in view.views("gates")
        if gate.text("verdict") != "PASS" and gate.text("detail")
    ]
    parts = [
        f"## {markdown.escape(bundle_name(view))}: {status_verdict(view)}",
        markdown.escape(status_sentence(view)),
        "\n".join(f"- {markdown.escape(sentence)}" for sentence in findings),
        markdown.table(_GATE_HEADER, _gate_rows(view), words=2) if view.views("gates") else "",
        "\n".join(details),
        markdown.table(("stage", "", "time"), stages, words=2) if stages else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def text_summary(record: Mapping[str, Json]) -> str:
    """Return the run as plain text: verdict, findings and a table of gates in columns."""
    view = View(record)
    lines = [
        f"{bundle_name(view)}: {status_verdict(view)}. {status_sentence(view)}",
        f"  accuracy  {accuracy_sentence(view)}",
        f"  latency   {latency_sentence(view)}",
        f"  size      {size_sentence(view)}",
    ]
    rows = _gate_rows(view)
    table = ["", *columns([_GATE_HEADER, *rows], words=2)] if rows else []
    return "\n".join(writable(line) for line in [*lines, *table])


def columns(rows: Sequence[Sequence[str]], *, words: int) -> list[str]:
    """Return `rows` as lines with aligned columns; columns from index `words` on are right-aligned."""
    flat = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in flat) for index in range(len(flat[0]))]

    def padded(index: int, cell: str) -> str:
        return cell.ljust(widths[index]) if index < words else cell.rjust(widths[index])

    return ["  ".join(padded(index, cell) for index, cell in enumerate(row)).rstrip() for row in flat]


def _gate_rows(view: View) -> list[tuple[str, ...]]:
    return [
        (
            gate.text("name"),
            gate.text("verdict"),
            quantity(gate.number("value"), gate.text("unit")),
            quantity_span(gate.pair("interval"), gate.text("unit")) or "exact",
            quantity(gate.number("limit"), gate.text("unit")),
            count(gate.number("n")),
        )
        for gate in view.views("gates")
    ]

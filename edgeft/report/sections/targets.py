"""The targets of one build side by side; only where there are several."""

from collections.abc import Sequence

from edgeft.report.blocks import badge, name, note, section, table
from edgeft.report.markup import Content, Markup
from edgeft.report.numbers import count, duration, fixed, milliseconds, percent, points, size, span
from edgeft.report.reading import View, rows_word
from edgeft.report.sentences import METRIC_INTERVAL

_WORST = ("FAIL", "INCONCLUSIVE", "PASS")


def targets(record: View) -> Markup:
    """Return the section."""
    found = record.views("targets")
    metric = (found[0].text("metric") or "accuracy").replace("_", " ")
    decided = ["target", "ships", "gates", metric, METRIC_INTERVAL, "drop, with interval", "decisions changed"]
    costs = ["target", "median", "time against float in onnxruntime", "size of its files", "left in float", "made in"]
    n, word = count(found[0].number("n")), rows_word(record)
    elsewhere = [item for item in found if item.text("not_timed")]
    return section(
        "targets",
        "Targets",
        table(f"What each decides: test split, {n} {word}", decided, [_decided(item) for item in found], words=(0, 1)),
        table("What each costs: one calibration for all", costs, [_costs(item) for item in found], words=(0,)),
        _elsewhere(elsewhere),
        lead=f"Each of the {count(len(found))} targets has a bundle of its own.",
    )


def _elsewhere(found: Sequence[View]) -> Markup | None:
    if not found:
        return None
    names = ", ".join(item.text("target") for item in found)
    return note(
        f"{names}: {found[0].text('not_timed')}. Answers were computed by onnxruntime from the same file, and speed "
        "was not measured."
    )


def _decided(item: View) -> list[Content]:
    verdicts = {gate.text("verdict") for gate in item.views("gates")}
    worst = next((verdict for verdict in _WORST if verdict in verdicts), "none")
    interval = item.pair("interval")
    return [
        name(item.text("target")),
        item.text("ships"),
        badge(worst),
        percent(item.number("value")),
        f"{span(interval, 1, 100)} %" if interval else "no interval",
        f"{points(item.number('drop_pp'))} ({span(item.pair('drop_interval_pp'), 1)})",
        count(item.number("changed")),
    ]


def _costs(item: View) -> list[Content]:
    ratio, low_high = item.number("ratio_to_fp32"), item.pair("ratio_interval")
    stray, left = item.number("float_unexpected") or 0, count(item.number("float_operators"))
    timed = ratio is not None and low_high is not None
    return [
        name(item.text("target")),
        milliseconds(item.number("median_ms")) if timed else "not measured",
        f"{fixed(ratio or 0.0, 2)} ({span(low_high, 2)})" if timed else "not measured",
        size(item.number("size_bytes")),
        f"{left}, {count(stray)} of them not by design" if stray else left,
        duration(item.number("build_seconds")),
    ]

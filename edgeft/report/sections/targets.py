"""The targets of one build side by side; only where there are several."""

from edgeft.report.blocks import badge, name, note, section, table
from edgeft.report.markup import Content, Markup
from edgeft.report.numbers import count, duration, fixed, milliseconds, percent, points, size, span
from edgeft.report.reading import View, rows_word
from edgeft.report.sentences import METRIC_INTERVAL

_WORST = ("FAIL", "INCONCLUSIVE", "PASS")


def targets(record: View) -> Markup:
    """Return the section."""
    found = record.views("targets")
    rows = [_row(item) for item in found]
    metric = (found[0].text("metric") or "accuracy").replace("_", " ")
    header = [
        *("target", "ships", "gates", metric, METRIC_INTERVAL, "drop, pp", "changed", "median"),
        *("time against float in onnxruntime", "size", "left in float", "made in"),
    ]
    elsewhere = [item.text("target") for item in found if item.text("not_timed")]
    told = (
        f"{', '.join(elsewhere)}: {found[0].text('not_timed') or 'unverified on hardware'}. Answers were computed by "
        "onnxruntime from the same file, and speed was not measured."
    )
    n, word = count(found[0].number("n")), rows_word(record)
    return section(
        "targets",
        "Targets",
        table(f"One calibration, {count(len(found))} targets; test split, {n} {word}", header, rows, words=(0, 1)),
        note(told) if elsewhere else None,
        lead=f"Each of the {count(len(found))} targets has a bundle of its own.",
    )


def _row(item: View) -> list[Content]:
    verdicts = {gate.text("verdict") for gate in item.views("gates")}
    worst = next((verdict for verdict in _WORST if verdict in verdicts), "none")
    interval, ratio = item.pair("interval"), item.number("ratio_to_fp32")
    low_high = item.pair("ratio_interval")
    stray, left = item.number("float_unexpected") or 0, count(item.number("float_operators"))
    return [
        name(item.text("target")),
        item.text("ships"),
        badge(worst),
        percent(item.number("value")),
        f"{span(interval, 1, 100)} %" if interval else "no interval",
        f"{points(item.number('drop_pp'))} ({span(item.pair('drop_interval_pp'), 1)})",
        count(item.number("changed")),
        milliseconds(item.number("median_ms")),
        "not measured" if ratio is None or low_high is None else f"{fixed(ratio, 2)} ({span(low_high, 2)})",
        size(item.number("size_bytes")),
        f"{left}, {count(stray)} unexpected" if stray else left,
        duration(item.number("build_seconds")),
    ]

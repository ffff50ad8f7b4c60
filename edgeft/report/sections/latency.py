"""How fast it runs: rounds of both arms, the ratio against the machine's own noise, quantiles, memory."""

from edgeft.report.blocks import absent, badge, figure, note, section, series, table, tone
from edgeft.report.charts.interval import Judged, interval_line
from edgeft.report.charts.samples import Arm, samples_chart
from edgeft.report.markup import Content, Markup, element, join
from edgeft.report.numbers import count, fixed, milliseconds, percent, size, span
from edgeft.report.reading import View, chosen, latency_arms, measured_on
from edgeft.report.sentences import GATE_INTERVAL, NO_LATENCY, latency_sentence

_QUANTILES = ("p50", "p90", "p99")


def latency(record: View) -> Markup:
    """Return the section."""
    measured = latency_arms(record)
    if not measured:
        return section(
            "latency", "Latency", absent(f"{NO_LATENCY} The bundle says nothing about speed on this machine.")
        )
    return section(
        "latency",
        "Latency",
        _samples(measured, record),
        _ratio(record),
        _table(measured, record.at("latency")),
        lead=f"{latency_sentence(record)}. Measured on {measured_on(record)} only.",
    )


def _samples(measured: list[tuple[str, View]], record: View) -> Markup:
    ship = chosen(record)
    arms = [
        Arm(name, series(name, ship), median, processes)
        for name, arm in measured
        if (median := arm.number("median_ms")) is not None and any(processes := [p for p in arm.rows("rounds_ms") if p])
    ]
    if not arms:
        return absent("The single samples are not in this record, so their distribution cannot be drawn.")
    counted = "; ".join(
        f"{arm.name}: {count(len(arm.samples()))} samples from {count(len(arm.processes_ms))} processes, "
        f"{milliseconds(min(arm.samples()))} to {milliseconds(max(arm.samples()))}"
        for arm in arms
    )
    drawing = samples_chart(arms, title="Every latency sample", description=f"{latency_sentence(record)}. {counted}.")
    caption = (
        "Every sample is a stroke. Each row is one fresh process, the first at the top; the dot is the row's median, "
        f"the line the arm's. {counted}."
    )
    return figure(drawing, caption, class_="wide")


def _ratio(record: View) -> Markup | None:
    compared = record.at("latency")
    ratio, floor, interval = compared.number("ratio"), compared.number("noise_floor"), compared.pair("interval")
    limit = compared.number("max_ratio") or 1.0
    if ratio is None:
        return None
    verdict = compared.text("verdict")
    judged = Judged(value=ratio, interval=interval, limit=limit, reference=1.0, noise=floor)
    limits = f", {GATE_INTERVAL} {span(interval, 3)}" if interval else ""
    noise = (
        f" Grey band: a change up to {percent(floor)} could not be told from none here (A/A control)."
        if floor is not None
        else " The noise floor is not recorded."
    )
    drawing = interval_line(
        judged,
        tone=tone(verdict),
        labels=("same speed", f"limit {fixed(limit, 2)}"),
        title="Ratio of the medians, shipped over fp32",
        description=f"{fixed(ratio, 3)}{limits}.{noise}",
    )
    caption = join(badge(verdict) if verdict else None, f" Ratio {fixed(ratio, 3)}{limits}; below 1 is faster.{noise}")
    return figure(drawing, caption)


def _table(measured: list[tuple[str, View]], compared: View) -> Markup:
    rows: list[list[Content]] = [
        [
            name,
            *(_quantile(arm, key) for key in _QUANTILES),
            _quantile(arm, "end_to_end_p50"),
            milliseconds(arm.number("load_ms")),
            milliseconds(arm.number("first_ms")),
            size(arm.number("peak_rss_bytes")),
            size(arm.number("base_rss_bytes")),
        ]
        for name, arm in measured
    ]
    threads = compared.number("threads")
    how = [f"{count(threads)} thread{'s' if threads != 1 else ''}" if threads else "", compared.text("inputs")]
    caption = "; ".join(
        [f"Latency of one image, small: {GATE_INTERVAL} of each quantile", *(text for text in how if text)]
    )
    header = [
        "model",
        "median",
        "p90",
        "p99",
        "median from raw data",
        "load",
        "first inference",
        "peak memory",
        "without model",
    ]
    few = any(arm.data.get("p99") is None for _, arm in measured)
    reason = note("No p99 is given below 299 samples: fewer cannot bound it.") if few else None
    return join(table(caption, header, rows), reason)


def _quantile(arm: View, key: str) -> Content:
    """Return a quantile with its interval; the median stands even where p50 is not kept."""
    found = arm.at(key)
    value = found.number("value_ms") if found else arm.number("median_ms") if key == "p50" else None
    if value is None:
        return "too few samples" if key in arm.data else milliseconds(None)
    low, high = found.number("low_ms"), found.number("high_ms")
    limits = None if low is None or high is None else element("small", span((low, high), 2))
    return join(milliseconds(value), limits)

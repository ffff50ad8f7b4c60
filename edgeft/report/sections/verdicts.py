"""The verdict, readable from two metres, then every gate with what it judged."""

from edgeft.core.record import Verdict
from edgeft.report.blocks import absent, badge, section, tone
from edgeft.report.charts.interval import Judged, interval_line
from edgeft.report.markup import Markup, element
from edgeft.report.numbers import count, fixed, percent, points, quantity, quantity_span, size, span
from edgeft.report.reading import FP32, View, bundle_name, candidate, chosen, is_quantize, latency_arms, timed
from edgeft.report.sentences import (
    GATE_INTERVAL,
    METRIC_INTERVAL,
    command,
    gate_numbers,
    metric_name,
    metric_of,
    speed_factor,
    status_sentence,
    status_verdict,
)

_SIGNS = {"PASS": "\u2713", "FAIL": "\u2715", "INCONCLUSIVE": "?"}
_AT_MOST = {"pp", "ratio", "ms", "logit", "flips", "bytes", "share"}
_AT_LEAST = {"agreement"}
_REFERENCES = {"pp": (0.0, "no change"), "ratio": (1.0, "same speed")}


def hero(record: View) -> Markup:
    """Return the head of the page: name, verdict and the three numbers that matter."""
    verdict = status_verdict(record)
    day = record.text("started")[:10]
    return element(
        "header",
        element(
            "div",
            element("p", f"{command(record)} report", f" \u00b7 {day}" if day else None, class_="eyebrow"),
            element("h1", element("bdi", bundle_name(record)), class_="title"),
            element(
                "p",
                element("span", _SIGNS.get(verdict, "\u2013"), aria_hidden="true", class_="sign"),
                verdict,
                class_="verdict",
            ),
            element("p", status_sentence(record), class_="status"),
            class_="hero-verdict",
        ),
        element(
            "ul",
            _kept(record) if is_quantize(record) else _accuracy(record),
            _speed(record),
            _size(record),
            class_="keys",
        ),
        class_=f"hero {tone(verdict)}",
    )


def _key(title: str, value: str, detail: str) -> Markup:
    return element(
        "li",
        element("span", title, class_="key-title"),
        element("strong", value, class_="key-value"),
        element("span", detail, class_="key-detail"),
    )


def _accuracy(record: View) -> Markup:
    ship = chosen(record)
    blocks = record.at("verify", "metrics")
    value = metric_of(blocks.at(ship), record)
    title = f"{metric_name(record)} on test, {ship or 'no model'}"
    if value is None:
        return _key(title, "\u2013", "not measured in this run")
    drop = record.at("verify", "drop")
    n = f"n = {count(blocks.at(ship).number('n'))}"
    if ship == FP32:
        return _key(title, percent(value), f"the float model ships; {n}")
    interval = drop.pair("interval_pp")
    limits = f" ({GATE_INTERVAL} {span(interval, 1)})" if interval else ""
    before = percent(metric_of(blocks.at(FP32), record))
    return _key(title, percent(value), f"fp32 {before}, drop {points(drop.number('value_pp'))}{limits}, {n}")


def _kept(record: View) -> Markup:
    """Return what the compressed candidate kept: accuracy where it was measured, else how often it decides alike."""
    title = timed(record) if record.at("latency") else next(iter(_compressed(record)), "")
    found = candidate(record, title).at("validation")
    n = f"n = {count(found.number('n'))}"
    if (value := found.number("value")) is not None:
        interval = found.pair("interval")
        limits = f" ({METRIC_INTERVAL} {span(interval, 1, 100)} %)" if interval else ""
        drop = found.pair("drop_interval_pp")
        lost = f", drop {points(found.number('drop_pp'))}" + (f" ({GATE_INTERVAL} {span(drop, 1)})" if drop else "")
        return _key(f"accuracy, {title}", percent(value), f"{n}{limits}{lost}")
    if (agreement := found.number("agreement")) is not None:
        return _key(f"decisions of {title} equal to fp32", percent(agreement, 2), f"{n}; accuracy was not measured")
    sqnr = found.number("sqnr_db")
    return _key(
        f"SQNR, {title}", "\u2013" if sqnr is None else f"{fixed(sqnr, 1)} dB", f"{n}; accuracy was not measured"
    )


def _compressed(record: View) -> list[str]:
    names = [item.text("name") for item in record.at("candidates").views("candidates")]
    return [name for name in names if name != FP32]


def _speed(record: View) -> Markup:
    factor = speed_factor(record)
    name = timed(record)
    title = "speed against fp32" if name == chosen(record) else f"speed of {name} against fp32"
    if factor is None:
        return _key("speed against fp32", "\u2013", "not measured in this run (--no-latency)")
    medians = " against ".join(
        f"{quantity(arm.number('median_ms'), 'ms')} ({name})" for name, arm in reversed(latency_arms(record))
    )
    interval = record.at("latency").pair("interval")
    limits = (
        f", {GATE_INTERVAL} {fixed(1 / interval[1], 2)} to {fixed(1 / interval[0], 2)}"
        if interval and min(interval) > 0
        else ""
    )
    return _key(title, f"{fixed(factor, 2)}\u00d7", f"{medians}, median{limits}")


def _size(record: View) -> Markup:
    ship = chosen(record)
    own, base = (candidate(record, name).number("size_bytes") for name in (ship, FP32))
    if own is None:
        return _key("size of the model", "\u2013", "not recorded")
    smaller = (
        f"fp32 {size(base)}, {fixed(base / own, 1)}\u00d7 smaller" if base and own < base else f"fp32 {size(base)}"
    )
    return _key("size of the model", size(own), "the float model ships" if ship == FP32 else smaller)


def gates(record: View) -> Markup:
    """Return one card for each gate, those that did not pass first."""
    order: dict[str | None, int] = {Verdict.FAIL: 0, Verdict.INCONCLUSIVE: 1}
    found = sorted(record.views("gates"), key=lambda gate: order.get(gate.text("verdict"), 2))
    if not found:
        return section(
            "gates",
            "Gates",
            absent("No gate was judged in this run: the recipe asks for none, or the run stopped before verify."),
        )
    asked = "What was asked of int8" if is_quantize(record) else "What the recipe requires"
    lead = (
        f"{asked} and what was measured. Dot: the value. Thick line: its interval. Shaded: what the limit allows. A "
        "gate passes where the whole interval is allowed, fails where none of it is, and is inconclusive in between; "
        "where another rule decided, its sentence says so."
    )
    return section("gates", "Gates", element("ul", *(_gate(gate, record) for gate in found), class_="gates"), lead=lead)


def _gate(gate: View, record: View) -> Markup:
    unit, verdict = gate.text("unit"), gate.text("verdict")
    interval = gate.pair("interval")
    return element(
        "li",
        element("div", badge(verdict), element("h3", gate.text("name")), class_="gate-name"),
        element(
            "div",
            element("strong", quantity(gate.number("value"), unit), class_="gate-value"),
            element(
                "span", f"{GATE_INTERVAL} {quantity_span(interval, unit)}" if interval else "exact value, no interval"
            ),
            element("span", f"limit {quantity(gate.number('limit'), unit)} \u00b7 n = {count(gate.number('n'))}"),
            class_="gate-numbers",
        ),
        _glyph(gate, record),
        element("p", gate.text("detail"), class_="gate-detail"),
        class_=f"gate {tone(verdict)}",
    )


def _glyph(gate: View, record: View) -> Markup | None:
    value, limit, unit, verdict = gate.number("value"), gate.number("limit"), gate.text("unit"), gate.text("verdict")
    if value is None or limit is None:
        return None
    reference, reference_label = _REFERENCES.get(unit, (None, ""))
    judged = Judged(
        value=value,
        interval=gate.pair("interval"),
        limit=limit,
        reference=reference,
        allowed_below=_allowed_below(unit),
        noise=record.at("latency").number("noise_floor") if unit == "ratio" else None,
    )
    return interval_line(
        judged,
        tone=tone(verdict),
        labels=(reference_label, f"limit {quantity(limit, unit)}"),
        title=f"{gate.text('name')}: {verdict}",
        description=gate_numbers(gate),
    )


def _allowed_below(unit: str) -> bool | None:
    """Tell on which side of a limit in `unit` values are allowed; None for a unit that edgeft does not know."""
    return True if unit in _AT_MOST else False if unit in _AT_LEAST else None

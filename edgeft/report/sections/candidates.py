"""What was built and what was picked: accuracy against latency on validation."""

from collections.abc import Sequence

from edgeft.report.blocks import absent, figure, note, section, series, table
from edgeft.report.charts.samples import quantile
from edgeft.report.charts.scatter import Point, scatter
from edgeft.report.markup import Markup
from edgeft.report.numbers import MISSING, count, duration, fixed, milliseconds, percent, points, size, span
from edgeft.report.reading import FP32, View, candidate, chosen, finite, is_quantize, judged_on
from edgeft.report.sentences import GATE_INTERVAL, METRIC_INTERVAL


def candidates(record: View) -> Markup:
    """Return the section."""
    built = record.at("candidates").views("candidates")
    if not built:
        return section("candidates", "Candidates", absent("No candidate was built: the run stopped before compress."))
    reason = record.at("choice").text("reason")
    lead = f"{reason}." if reason else "No candidate was chosen in this run."
    single = note("There was a single candidate, so there was nothing to choose between.") if len(built) == 1 else None
    return section(
        "candidates",
        "Candidates",
        single,
        _scatter(record, built),
        _table(record, built),
        _ladder(record, built),
        None
        if is_quantize(record)
        else note("Candidates are judged on the validation split only; the test split never changes the choice."),
        lead=lead,
    )


def _scatter(record: View, built: Sequence[View]) -> Markup | None:
    drawn = [point for index, item in enumerate(built) if (point := _point(record, item, index))]
    if not drawn and is_quantize(record):  # without labels or without timing there is nothing to draw
        return None
    if not drawn:
        return absent("The candidates' latency was not measured in this run, so there is no accuracy-latency picture.")
    metric = (built[0].at("validation").text("metric") or "accuracy").replace("_", " ")
    base, margin = (
        candidate(record, FP32).at("validation").number("value"),
        record.at("verify", "drop").number("margin_pp") or record.at("settings").number("max_drop_pp"),
    )
    floor = None if base is None or margin is None else 100 * base - margin
    words = "; ".join(f"{p.name} {milliseconds(p.latency_ms)}, {fixed(p.metric, 1)} %" for p in drawn)
    drawing = scatter(
        drawn, metric=metric, margin=floor, title="Accuracy against latency of the candidates", description=words
    )
    caption = (
        f"{metric.capitalize()} on {judged_on(record)} against median latency. Vertical: {METRIC_INTERVAL}. "
        "Horizontal: from the fastest to the slowest round."
    )
    missing = len(built) - len(drawn)
    return figure(drawing, caption + (f" {missing} without latency, not drawn." if missing else ""), class_="wide")


def _point(record: View, item: View, index: int) -> Point | None:
    name = item.text("name")
    latency, validation = record.at("choice", "latency", name), item.at("validation")
    median, value = latency.number("median_ms"), validation.number("value")
    if median is None or value is None:
        return None
    rounds = _round_medians(latency)
    interval = validation.pair("interval")
    return Point(
        name=name,
        class_=series(name, chosen(record), index),
        latency_ms=median,
        latency_range=(min([*rounds, median]), max([*rounds, median])),
        metric=100 * value,
        metric_interval=None if interval is None else (100 * interval[0], 100 * interval[1]),
    )


def _round_medians(latency: View) -> list[float]:
    """Return one number a round, whether the record kept a round's samples or its median."""
    return latency.numbers("rounds_ms") or [quantile(samples, 0.5) for samples in latency.rows("rounds_ms") if samples]


def _table(record: View, built: Sequence[View]) -> Markup:
    """Return the candidates' numbers; of a quantization without the columns that nothing was measured for."""
    rows = [_cells(record, item) for item in built]
    shown = [title for title in rows[0] if not is_quantize(record) or any(row[title] != MISSING for row in rows)]
    cells = [[row[title] for title in shown] for row in rows]
    words = [index for index, title in enumerate(shown) if title == "holds margin"]
    return table(f"Candidates on {judged_on(record)}", shown, cells, words=words)


def _cells(record: View, item: View) -> dict[str, str]:
    name, validation = item.text("name"), item.at("validation")
    return {
        "candidate": f"{name} (chosen)" if name == chosen(record) else name,
        **_worth(validation),
        "median latency": milliseconds(record.at("choice", "latency", name).number("median_ms")),
        "size": size(item.number("size_bytes")),
        "n": count(validation.number("n")),
    }


def _worth(validation: View) -> dict[str, str]:
    drop = validation.pair("drop_interval_pp")
    lost = points(validation.number("drop_pp"), 2)
    error, sqnr = (finite(validation.data.get(key)) for key in ("mean_abs_logit_error", "sqnr_db"))
    return {
        "metric": percent(validation.number("value")),
        f"drop ({GATE_INTERVAL})": f"{lost} ({span(drop, 2)})" if drop else lost,
        "agreement": percent(validation.number("agreement"), 2),
        "logit error": MISSING if error is None else fixed(error, 3),
        "SQNR": _sqnr(validation, sqnr),
        "holds margin": {True: "yes", False: "no", None: MISSING}[validation.flag("holds_margin")],
    }


def _ladder(record: View, built: Sequence[View]) -> Markup | None:
    """Return what was tried on the way to a candidate, where that was more than one thing."""
    rungs = [rung for item in built for rung in item.views("ladder")]
    if len(rungs) < 2:  # noqa: PLR2004 - one rung is the candidate itself
        return None
    told = ["metric", f"drop ({GATE_INTERVAL})", "agreement", "logit error", "SQNR", "holds margin"]
    cells = []
    for rung in rungs:
        worth, name = _worth(rung.at("validation")), rung.text("rung")
        cells.append([name, rung.text("method"), _made_in(record, name), *(worth[title] for title in told)])
    columns = ["rung", "what was done", "made in", *told]
    return table(f"Tried in this order on {judged_on(record)}", columns, cells, words=[1, len(columns) - 1])


def _made_in(record: View, rung: str) -> str:
    """Return how long a rung took when it was made, without judging it."""
    places = (record.at("candidates", "timings"), record.at("timings"))
    return duration(next((s for each in places if (s := each.number(f"{rung}_seconds")) is not None), None))


def _sqnr(validation: View, sqnr_db: float | None) -> str:
    if sqnr_db is not None:
        return f"{fixed(sqnr_db, 1)} dB"
    return "equal outputs" if "sqnr_db" in validation.data else MISSING

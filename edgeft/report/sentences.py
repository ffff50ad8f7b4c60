"""The findings in one sentence each, with n and interval: the same words in the page, the card, the summary and JUnit.

"int8 76.1 % (fp32 76.4 %, drop 0.3 pp, 95 % CI 0.1 to 0.5, n = 525)"
"""

from edgeft.core.record import Verdict
from edgeft.report.numbers import count, fixed, milliseconds, percent, points, quantity, quantity_span, size, span
from edgeft.report.reading import FP32, View, candidate, chosen, is_quantize, latency_arms
from edgeft.verify.distributions import CONFIDENCE

GATE_INTERVAL = f"{100 * CONFIDENCE:.0f} % CI"
"""Intervals that gates judge: two-sided, so each end is a one-sided 95 % bound."""
METRIC_INTERVAL = "95 % CI"
"""Intervals of a single model's metric."""
NO_LATENCY = "Latency was not measured in this run (--no-latency)."
NO_ACCURACY = "Accuracy was not measured in this run."
_STATUS_WORDS = {"passed": "PASS", "failed": "FAIL", "inconclusive": "INCONCLUSIVE"}


def command(record: View) -> str:
    """Return the command that made the record."""
    return "edgeft quantize" if is_quantize(record) else "edgeft build"


def status_verdict(record: View) -> str:
    """Return the run's status as one word; "NOT JUDGED" where it is none of the three."""
    return _STATUS_WORDS.get(record.text("status"), "NOT JUDGED")


def status_sentence(record: View) -> str:
    """Return how many gates decided what, naming those that did not pass; of a quantization, what ships and why."""
    if is_quantize(record) and record.text("verdict"):
        return f"{record.text('verdict')}."
    gates = record.views("gates")
    if not gates:
        return "No gate was judged in this run."
    passed = [gate for gate in gates if gate.text("verdict") == Verdict.PASS]
    sentences = []
    for verdict, one, many in (
        (Verdict.FAIL, "fails", "fail"),
        (Verdict.INCONCLUSIVE, "is undecided", "are undecided"),
    ):
        names = [gate.text("name") for gate in gates if gate.text("verdict") == verdict]
        if names:
            sentences.append(
                f"{len(names)} of {len(gates)} gates {one if len(names) == 1 else many}: {', '.join(names)}."
            )
    if sentences:
        return " ".join(sentences)
    if len(passed) < len(gates):
        return f"{len(passed)} of {len(gates)} gates pass; the others carry no verdict."
    return "The one gate passes." if len(gates) == 1 else f"All {len(gates)} gates pass."


def metric_name(record: View) -> str:
    """Return the metric that the accuracy gate judges, in words."""
    return (record.at("verify", "drop").text("metric") or "accuracy").replace("_", " ")


def metric_of(block: View, record: View) -> float | None:
    """Return the judged metric of one metrics block."""
    return block.number(record.at("verify", "drop").text("metric") or "accuracy")


def accuracy_sentence(record: View) -> str:
    """Return the shipped model's metric beside fp32's, with the paired drop, its interval and n."""
    ship = chosen(record)
    blocks = record.at("verify", "metrics")
    value = metric_of(blocks.at(ship), record)
    if value is None:
        return NO_ACCURACY
    drop = record.at("verify", "drop")
    n = drop.number("n") or blocks.at(ship).number("n")
    parts = []
    if ship != FP32:
        parts.append(f"fp32 {percent(metric_of(blocks.at(FP32), record))}")
        parts.append(f"drop {points(drop.number('value_pp'))}")
        if interval := drop.pair("interval_pp"):
            parts.append(f"{GATE_INTERVAL} {span(interval, 1)}")
    elif interval := blocks.at(ship).pair(f"{drop.text('metric') or 'accuracy'}_interval"):
        parts.append(f"{METRIC_INTERVAL} {span(interval, 1, 100)} %")
    parts.append(f"n = {count(n)}")
    return f"{ship} {percent(value)} ({', '.join(parts)})"


def speed_factor(record: View) -> float | None:
    """Return how many times faster the shipped model is than fp32 (below 1: slower)."""
    ratio = record.at("latency").number("ratio")
    return 1 / ratio if ratio else None


def speed_words(factor: float) -> str:
    """Return 1.52 as "1.52x faster than fp32", 0.8 as "1.25x slower than fp32"."""
    if fixed(factor, 2) == "1.00":
        return "as fast as fp32"
    return f"{fixed(factor, 2)}x faster than fp32" if factor > 1 else f"{fixed(1 / factor, 2)}x slower than fp32"


def latency_sentence(record: View) -> str:
    """Return the medians of both arms, the ratio with its interval, the noise floor and the number of rounds."""
    latency = record.at("latency")
    factor = speed_factor(record)
    if factor is None:
        return NO_LATENCY
    medians = [f"{name} {milliseconds(arm.number('median_ms'))}" for name, arm in reversed(latency_arms(record))]
    parts = [f"ratio {fixed(latency.number('ratio') or 0.0, 3)}"]
    if interval := latency.pair("interval"):
        parts.append(f"{GATE_INTERVAL} {span(interval, 3)}")
    if (floor := latency.number("noise_floor")) is not None:
        parts.append(f"noise floor {percent(floor)}")
    if (rounds := latency.number("rounds")) is not None:
        parts.append(f"{count(rounds)} rounds")
    return f"{', '.join(medians)}: {speed_words(factor)} ({', '.join(parts)})"


def size_sentence(record: View) -> str:
    """Return the shipped file's size beside fp32's."""
    ship = chosen(record)
    own, base = (candidate(record, name).number("size_bytes") for name in (ship, FP32))
    if own is None:
        return "The size is not recorded."
    if ship == FP32 or not base:
        return f"{ship} {size(own)}"
    return (
        f"{ship} {size(own)} (fp32 {size(base)}, {fixed(base / own, 1)}x smaller)"
        if own < base
        else f"{ship} {size(own)} (fp32 {size(base)})"
    )


def gate_numbers(gate: View) -> str:
    """Return a gate's value, interval, limit and n: "0.31 pp (0.10 to 0.52), limit 2.00 pp, n = 525"."""
    unit = gate.text("unit")
    interval = gate.pair("interval")
    value = quantity(gate.number("value"), unit)
    return ", ".join(
        [
            f"{value} ({GATE_INTERVAL} {quantity_span(interval, unit)})" if interval else value,
            f"limit {quantity(gate.number('limit'), unit)}",
            f"n = {count(gate.number('n'))}",
        ]
    )

"""A student beside its teacher and beside what it would be without one; only in runs that distilled."""

from edgeft.report.blocks import note, section, table
from edgeft.report.markup import Content, Markup
from edgeft.report.numbers import count, fixed, percent, points, size, span
from edgeft.report.pictures import Pictures
from edgeft.report.reading import View, measured_on, rows_word
from edgeft.report.sections.decisions import Pair, grouped, harmful, helpful
from edgeft.report.sentences import GATE_INTERVAL, METRIC_INTERVAL

_WHAT = {
    "teacher": "what was fine-tuned",
    "without_teacher": "the student from labels alone",
    "from_scratch": "the student from random weights and labels alone",
    "student": "the student as distilled, in float",
}


def distillation(record: View, pictures: Pictures) -> Markup:
    """Return the section."""
    found = record.at("verify", "distillation")
    rows, pair = found.views("disagreements"), Pair("teacher", "student", "the teacher", "the student")
    n, word = found.number("n") or 0.0, rows_word(record)
    lead = (
        f"Student and teacher, each by its highest score, disagree on {count(len(rows))} of {count(n)} test {word}: on "
        f"{count(len(harmful(rows)))} the teacher is right, on {count(len(helpful(rows, pair)))} the student."
    )
    drop = found.at("drop")
    if interval := drop.pair("interval_pp"):
        lead += (
            f" From the teacher to what ships, {drop.text('metric').replace('_', ' ')} drops by "
            f"{points(drop.number('value_pp'))} ({GATE_INTERVAL} {span(interval, 1)})."
        )
    speed = _speed(found, measured_on(record))
    return section(
        "distillation", "Student and teacher", _table(found, record), speed, *grouped(rows, pair, pictures), lead=lead
    )


def _milliseconds(arm: str, found: View, record: View) -> str:
    """Return an arm's median latency; baselines are the student's own network."""
    ships = found.at("arms", arm).flag("ships") or arm not in _WHAT
    told = found.at("latency", "base") if arm == "teacher" else record.at("latency", "new" if ships else "base")
    taken = told.number("median_ms")
    many = (found.number("teachers") or 1) if arm == "teacher" else 1
    return "not timed" if taken is None else f"{fixed(taken * many, 2)} ms"


def _table(found: View, record: View) -> Markup:
    metric = found.text("metric").replace("_", " ")
    teacher = found.at("arms", "teacher").number("size_bytes")
    rows: list[list[Content]] = []
    for arm in found.at("arms").data:
        told = found.at("arms", arm)
        interval, own = told.pair("interval"), told.number("size_bytes")
        many = found.number("teachers") or 1
        what = f"{count(many)} teachers, averaged" if arm == "teacher" and many > 1 else _WHAT.get(arm, "what ships")
        rows.append(
            [
                arm.replace("_", " "),
                what,
                percent(told.number("value")),
                f"{span(interval, 1, 100)} %" if interval else "no interval",
                size(own),
                f"{fixed(teacher / own, 1)} times" if teacher and own else "",
                _milliseconds(arm, found, record),
            ]
        )
    header = ["model", "what", metric, METRIC_INTERVAL, "size", "smaller than the teacher", "median latency"]
    caption = "Test split; sizes of weights as stored, latencies of graphs in float; of what ships, of its file"
    return table(caption, header, rows, words=(1,))


def _speed(found: View, where: str) -> Markup:
    told = found.at("latency")
    faster = told.at("times_as_fast")
    interval = faster.pair("interval")
    if not told or interval is None:
        return note("Student and teacher were not timed in this run.")
    many = found.number("teachers") or 1
    each = f" ({count(many)} of them, one after the other)" if many > 1 else ""
    own, teachers = (told.at(arm).number("median_ms") or 0.0 for arm in ("new", "base"))
    return note(
        f"What ships is {fixed(faster.number('value') or 0.0, 2)} times ({span(interval, 2)}) as fast as the teacher"
        f"{each} in float on {where}: {fixed(own, 2)} ms against {fixed(teachers * many, 2)} ms, "
        f"{count(told.number('threads'))} thread(s)."
    )

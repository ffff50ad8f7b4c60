"""MODEL_CARD.md: what the model is for, what it was trained and judged on, how good it is, where not to trust it.

After Mitchell et al. 2019 (Model Cards for Model Reporting), holding measured facts only.
"""

from collections.abc import Mapping

from edgeft.core.stage import Json
from edgeft.report import markdown
from edgeft.report.blocks import plain
from edgeft.report.markdown import escape
from edgeft.report.numbers import MISSING, count, percent, size
from edgeft.report.reading import FP32, View, bundle_name, candidate, chosen, rows_word, takes_texts
from edgeft.report.sentences import (
    accuracy_sentence,
    gate_numbers,
    latency_sentence,
    size_sentence,
    status_sentence,
    status_verdict,
)


def model_card(record: Mapping[str, Json]) -> str:
    """Return the model card as Markdown."""
    view = View(record)
    parts = [
        f"# {escape(bundle_name(view))}",
        _summary(view),
        "## Use",
        _use(view),
        "## Data",
        _data(view),
        "## How good it is",
        _quality(view),
        "## Limits",
        _limits(view),
        "## Made from",
        _origin(view),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(view: View) -> str:
    return (
        f"Verdict of the build: **{status_verdict(view)}**. {escape(status_sentence(view))}\n\n"
        f"- {escape(accuracy_sentence(view))}\n- {escape(latency_sentence(view))}\n- {escape(size_sentence(view))}"
    )


def _use(view: View) -> str:
    data = view.at("data")
    contract = data.at("input")
    classes = ", ".join(escape(name) for name in data.names("classes")) or MISSING
    ok = f" **{escape(data.text('ok_class'))}** means a good part." if data.text("ok_class") else ""
    if takes_texts(view):
        return (
            f"It sorts a text into one of: {classes}.{ok} It takes texts of up to {contract.text('max_length')} "
            "tokens, what is longer is cut; `edgeft.runtime` applies the tokenizer that training used, which is in the "
            "bundle. It knows no other classes and always answers with one of these."
        )
    pixels = (
        f"RGB images, resized to {contract.text('height')} x {contract.text('width')} "
        f"({escape(contract.text('resize').replace('_', ' '))}, {escape(contract.text('filter'))})"
        if contract
        else "an input contract that is not in this record"
    )
    return (
        f"It sorts an image into one of: {classes}.{ok} It takes {pixels}; `edgeft.runtime` applies the same resize "
        "that training used. It knows no other classes and always answers with one of these."
    )


def _data(view: View) -> str:
    counts = view.at("data", "counts")
    classes = view.at("data").names("classes")
    if not counts:
        return "The counts are not in this record."
    splits = list(counts.data)
    rows = [(name, *(count(counts.at(split).number(name) or 0) for split in splits)) for name in classes]
    findings = [
        f"- {escape(finding.text('severity'))}: {escape(finding.text('message'))}"
        for finding in view.at("data").views("audit")
    ]
    set_aside = len(view.at("data").views("quarantined"))
    aside = f"Files set aside: {set_aside}."
    return "\n\n".join(
        [markdown.table(("class", *splits), rows), aside, *(["Audit:\n\n" + "\n".join(findings)] if findings else [])]
    )


def _quality(view: View) -> str:
    ship = chosen(view)
    classes = view.at("verify", "metrics", ship).views("per_class")
    scores = ("precision", "recall", "f1")
    rows = [
        (row.text("name"), *(percent(row.number(key)) for key in scores), count(row.number("support")))
        for row in classes
    ]
    gates = [(gate.text("name"), gate.text("verdict"), gate_numbers(gate)) for gate in view.views("gates")]
    header = ("class", "precision", "recall", "F1", f"test {rows_word(view)}")
    by_class = markdown.table(header, rows) if rows else "No test metrics."
    judged = markdown.table(("gate", "verdict", "measured"), gates, words=3) if gates else "No gate was judged."
    return f"{escape(ship or 'The model')} on the test split:\n\n{by_class}\n\n{judged}"


def _limits(view: View) -> str:
    word = rows_word(view)
    other = "other sources, topics or languages" if takes_texts(view) else "other cameras, lights or products"
    lines = [
        f"Numbers hold for {word} like those of the test split; {other} need new ones.",
        f"Scores are calibrated by one temperature on validation {word}; on unlike {word} they can be surely wrong.",
    ]
    small = [
        f"{row.text('name')} ({count(row.number('support'))} test {word})"
        for row in view.at("verify", "metrics", chosen(view)).views("per_class")
        if (row.number("support") or 0) < 100  # noqa: PLR2004 - below this a rate has no useful interval
    ]
    if small:
        lines.append(f"Few test {word}, so wide uncertainty: {', '.join(small)}.")
    if not view.at("latency"):
        lines.append("Speed was not measured in this build.")
    if chosen(view) == FP32:
        lines.append(f"The float model ships: {view.at('choice').text('reason') or 'the reason is not recorded'}.")
    return "\n".join(f"- {escape(line)}" for line in lines)


def _origin(view: View) -> str:
    model, student = view.at("recipe", "model"), view.at("student")
    item = candidate(view, chosen(view))
    of = "teacher's " if student else ""
    tuned = [
        (f"{of}base model", model.text("base")),
        (f"{of}weights", model.text("weights")),
        ("fine-tuned by", view.at("recipe", "finetune").text("method")),
    ]
    if student:
        named = student.text("base")
        weights = (student.text("weights") or "random") if named else "its teacher's"
        tuned = [("student", named or "cut out of its teacher"), ("student began with", weights), *tuned]
    pairs = [
        *tuned,
        ("compressed by", item.text("method")),
        ("model size", size(item.number("size_bytes"))),
        ("seed", view.text("seed")),
        ("run", view.text("run")),
        ("built", view.text("started")),
        ("machine", plain(view.at("machine").data.get("cpu"))),
        ("edgeft", view.at("versions").text("edgeft")),
    ]
    return markdown.table(("what", "value"), [(key, value or MISSING) for key, value in pairs], words=2)

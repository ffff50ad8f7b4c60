"""Where a model that edgeft did not train comes from: the file, what import did to it, the data it was judged on."""

from edgeft.report.blocks import digest, facts, name, note, plain, section
from edgeft.report.markup import Content, Markup, element, join
from edgeft.report.numbers import count, general, size
from edgeft.report.reading import View


def source(record: View) -> Markup:
    """Return the section of a record that `edgeft quantize` wrote."""
    model = record.at("source")
    opset, used = model.text("opset"), model.text("opset_used")
    pairs: list[tuple[str, Content]] = [
        ("file", name(model.text("path"))),
        ("sha256", digest(model.text("sha256"), 16)),
        ("size", size(model.number("size_bytes"))),
        ("input", model.text("input")),
        ("compared on", join("tensor ", name(model.text("compared_on")))),
        ("opset", opset if opset == used else f"{opset}, brought to {used}"),
        ("operators", f"{model.text('operators')}, {model.text('operators_simplified')} after simplification"),
        ("largest difference by import", general(model.number("max_abs_error") or 0.0)),
    ]
    data = [(kind, _data(record.at(kind))) for kind in ("calibration", "evaluation") if record.at(kind)]
    settings = [(key.replace("_", " "), plain(value)) for key, value in record.at("settings").data.items()]
    remarks = [element("li", text) for text in record.names("notes")]
    return section(
        "source",
        "Model and data",
        facts(pairs),
        note(
            f"The imported graph was compared with the file on {count(model.number('compared_inputs'))} calibration "
            "inputs, one by one and as a batch."
        ),
        element("h3", "Data"),
        facts(data),
        element("h3", "Settings"),
        facts(settings),
        join(element("h3", "Notes"), element("ul", *remarks, class_="notes")) if remarks else None,
    )


def _data(found: View) -> Markup:
    words = f", n = {count(found.number('n'))}, {'with' if found.flag('labelled') else 'without'} labels"
    held_out = found.flag("held_out")
    same = "" if held_out is not False else "; the calibration data, since no other was given"
    return join(name(found.text("source")), words, same)

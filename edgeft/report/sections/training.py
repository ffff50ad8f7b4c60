"""How the training went, of a student its own before its teacher's: loss and validation metrics by epoch."""

from collections.abc import Sequence

from edgeft.report.blocks import absent, figure, legend, note, section, table
from edgeft.report.charts.curves import Curve, Plane, plot, y_range_of
from edgeft.report.markup import Markup, element, join
from edgeft.report.numbers import fixed, percent, significant
from edgeft.report.reading import View

_LOSSES = (("train_loss", "training", "s-other-1"), ("val_loss", "validation", "s-other-2"))
_SCORES = (("val_accuracy", "accuracy", "s-other-2"), ("val_balanced_accuracy", "balanced accuracy", "s-other-0"))
_TABLE_LIMIT = 40


def training(record: View) -> Markup:
    """Return the section."""
    parts = {"Student": record.at("student").views("history"), "Teacher": record.views("history")}
    told = {name: epochs for name, epochs in parts.items() if epochs}
    if not told:
        return section(
            "training",
            "Training",
            absent("No training history is in this record: nothing was trained, or the run stopped early."),
        )
    if "Student" in told:
        named = [
            join(element("h3", name), note(_lead(epochs)), _figures(epochs), _table(epochs))
            for name, epochs in told.items()
        ]
        return section("training", "Training", *named)
    (epochs,) = told.values()
    return section("training", "Training", _figures(epochs), _table(epochs), lead=_lead(epochs))


def _lead(epochs: Sequence[View]) -> str:
    losses = [(loss, index) for index, epoch in enumerate(epochs) if (loss := epoch.number("val_loss")) is not None]
    if not losses:
        return f"{len(epochs)} epochs."
    loss, index = min(losses)
    best = epochs[index].text("epoch") or index + 1
    return f"{len(epochs)} epochs; lowest validation loss {fixed(loss, 4)} after epoch {best}."


def _figures(epochs: Sequence[View]) -> Markup:
    loss = _figure(epochs, _LOSSES, "loss", 1.0, "Loss by epoch")
    scores = _figure(epochs, _SCORES, "validation, %", 100.0, "Validation metrics by epoch")
    return element("div", loss, scores, class_="panels")


def _figure(
    epochs: Sequence[View], keys: Sequence[tuple[str, str, str]], axis: str, factor: float, title: str
) -> Markup | None:
    lines = [(name, class_, _line(epochs, key, factor)) for key, name, class_ in keys]
    drawn = [(name, class_, points) for name, class_, points in lines if points]
    if not drawn:
        return None
    values = [y for _, _, points in drawn for _, y in points]
    steps = [x for _, _, points in drawn for x, _ in points]
    first, last = min(steps), max(steps)
    plane = Plane(
        "epoch",
        axis,
        (first, last if last > first else first + 1),
        y_range_of(values, floor=0.0),
        x_ticks=min(8, max(1, round(last - first))),
    )
    curves = [Curve(points, class_, markers=len(points) <= _TABLE_LIMIT) for _, class_, points in drawn]
    words = "; ".join(f"{name} from {fixed(points[0][1], 3)} to {fixed(points[-1][1], 3)}" for name, _, points in drawn)
    drawing = plot(curves, plane, title=title, description=words, size=(420, 280))
    return figure(drawing, join(title, legend((name, class_) for name, class_, _ in drawn)))


def _line(epochs: Sequence[View], key: str, factor: float) -> list[tuple[float, float]]:
    return [
        (epoch.number("epoch") or float(index), factor * value)
        for index, epoch in enumerate(epochs)
        if (value := epoch.number(key)) is not None
    ]


def _table(epochs: Sequence[View]) -> Markup:
    def number(value: float | None) -> str:
        return "not recorded" if value is None else fixed(value, 4)

    rows = [
        [
            epoch.text("epoch") or str(index),
            number(epoch.number("train_loss")),
            number(epoch.number("val_loss")),
            percent(epoch.number("val_accuracy")),
            percent(epoch.number("val_balanced_accuracy")),
            "not recorded" if (rate := epoch.number("lr")) is None else significant(rate),
        ]
        for index, epoch in enumerate(epochs, start=1)
    ]
    header = ["epoch", "training loss", "validation loss", "accuracy", "balanced accuracy", "learning rate"]
    inside = table("Training history; metrics on the validation split", header, rows)
    return element("details", element("summary", "Training history as a table"), inside)

"""How well it decides: fp32 beside what ships, class by class, with confusion matrices and curves."""

from edgeft.report.blocks import absent, figure, legend, name, note, section, series, table
from edgeft.report.charts.curves import Curve, Plane, plot
from edgeft.report.markup import Content, Markup, element, join
from edgeft.report.numbers import count, percent, points, span
from edgeft.report.reading import FP32, View, chosen
from edgeft.report.sections.confusion import confusion
from edgeft.report.sections.decision import decision
from edgeft.report.sections.slices import slices
from edgeft.report.sentences import GATE_INTERVAL, METRIC_INTERVAL, NO_ACCURACY, accuracy_sentence, metric_name

_PANELS = 6
_METRICS = (
    ("accuracy", "accuracy"),
    ("balanced_accuracy", "balanced accuracy"),
    ("macro_f1", "macro F1"),
    ("auroc", "AUROC"),
    ("average_precision", "average precision"),
    ("calibration_error", "expected calibration error"),
)


def accuracy(record: View) -> Markup:
    """Return the section."""
    blocks = metric_blocks(record)
    if not blocks:
        return section("accuracy", "Accuracy", absent(f"{NO_ACCURACY} The run stopped before verify."))
    data = record.at("data")
    return section(
        "accuracy",
        "Accuracy",
        _headline(blocks, record),
        _drop(record),
        confusion(blocks, data.names("classes")),
        decision(record),
        slices(blocks),
        _per_class(blocks),
        _curves(blocks, record),
        lead=f"{accuracy_sentence(record)}. Measured on the test split, which nothing before verify has read.",
    )


def metric_blocks(record: View) -> list[tuple[str, View]]:
    """Return (candidate, metrics) of everything verified, fp32 first."""
    metrics = record.at("verify", "metrics")
    return [
        (key, metrics.at(key)) for key in sorted(metrics.data, key=lambda key: (key != FP32, key)) if metrics.at(key)
    ]


def _headline(blocks: list[tuple[str, View]], record: View) -> Markup:
    judged = metric_name(record)
    rows: list[list[Content]] = []
    for key, title in _METRICS:
        if any(key in block.data for _, block in blocks):
            cells = [cell for _, block in blocks for cell in _estimate(block, key)]
            rows.append([f"{title} (judged)" if title.lower() == judged.lower() else title, *cells])
    header = ["metric", *(title for candidate, _ in blocks for title in (candidate, METRIC_INTERVAL))]
    undefined = any(block.number("auroc") is None for _, block in blocks)
    reason = note(
        "AUROC is undefined where the test split holds fewer than two classes, or where no score was recorded."
    )
    single = (
        note("fp32 is what ships: there is no compressed model to compare it with.") if chosen(record) == FP32 else None
    )
    caption = f"Metrics on the test split, n = {count(blocks[0][1].number('n'))}"
    return join(table(caption, header, rows), reason if undefined else None, single)


def _estimate(block: View, key: str) -> tuple[str, str]:
    value, interval = block.number(key), block.pair(f"{key}_interval")
    if value is None:
        return "undefined", ""
    return percent(value), f"{span(interval, 1, 100)} %" if interval else "no interval"


def _drop(record: View) -> Markup | None:
    drop = record.at("verify", "drop")
    if not drop or chosen(record) == FP32:
        return None
    words = (
        f"Paired difference in {drop.text('metric').replace('_', ' ')}: fp32 minus {chosen(record)} = "
        f"{points(drop.number('value_pp'), 2)}, {GATE_INTERVAL} {span(drop.pair('interval_pp'), 2) or 'not recorded'}, "
        f"allowed {points(drop.number('margin_pp'), 2)}, n = {count(drop.number('n'))}. "
        f"Method: {drop.text('method') or 'not recorded'}."
    )
    return note(words)


def _per_class(blocks: list[tuple[str, View]]) -> Markup:
    rows: list[list[Content]] = []
    by_candidate = [
        (candidate, {row.text("name"): row for row in block.views("per_class")}) for candidate, block in blocks
    ]
    for class_name in by_candidate[0][1]:
        for candidate, found in by_candidate:
            row = found.get(class_name, View({}))
            scores = [percent(row.number(key)) for key in ("precision", "recall", "f1")]
            rows.append([name(class_name), candidate, *scores, count(row.number("support"))])
    if not rows:
        return absent("No classification report was recorded.")
    header = ["class", "model", "precision", "recall", "F1", "images"]
    return join(element("h3", "By class"), table("Classification report on the test split", header, rows, words=(1,)))


def _curves(blocks: list[tuple[str, View]], record: View) -> Markup:
    classes = _worst_first(blocks[-1][1])
    if not classes:
        return absent("ROC and precision-recall curves are not defined for this test split, or were not recorded.")
    panels = [panel for class_name in classes[:_PANELS] for panel in _panels(class_name, blocks, record)]
    shown = f"The {_PANELS} of {len(classes)} classes with the lowest F1. " if len(classes) > _PANELS else ""
    ship = chosen(record)
    return join(
        element("h3", "ROC and precision-recall"),
        legend((candidate, series(candidate, ship)) for candidate, _ in blocks),
        element("div", *panels, class_="panels"),
        note(f"{shown}Ring: where the model's decisions (highest score) stand. Dashed: a coin."),
    )


def _worst_first(block: View) -> list[str]:
    f1 = {row.text("name"): row.number("f1") or 0.0 for row in block.views("per_class")}
    return sorted((curve.text("class") for curve in block.views("roc")), key=lambda class_name: f1.get(class_name, 0.0))


def _panels(class_name: str, blocks: list[tuple[str, View]], record: View) -> list[Markup]:
    ship, classes = chosen(record), record.at("data").names("classes")
    roc, pr = [], []
    for candidate, block in blocks:
        colour = series(candidate, ship)
        one, other = _curve(block, "roc", class_name), _curve(block, "pr", class_name)
        rates = _rates(block, class_name, classes)
        scores = next((row for row in block.views("per_class") if row.text("name") == class_name), View({}))
        recall, precision = scores.number("recall"), scores.number("precision")
        roc.append(Curve(_points(one, "fpr", "tpr"), colour, rates))
        decided = None if recall is None or precision is None else (recall, precision)
        pr.append(Curve(_points(other, "recall", "precision"), colour, decided))
    words = f"of class {class_name} for every threshold, one line for each model"
    rates_plane = Plane("false positive rate", "true positive rate", diagonal=True)
    title = f"ROC, class {class_name}"
    rising = plot(roc, rates_plane, title=title, description=f"True against false positive rate {words}.")
    title = f"Precision and recall, class {class_name}"
    falling = plot(pr, Plane("recall", "precision"), title=title, description=f"Precision against recall {words}.")
    return [
        figure(rising, join("ROC, ", name(class_name))),
        figure(falling, join("Precision and recall, ", name(class_name))),
    ]


def _curve(block: View, kind: str, class_name: str) -> View:
    return next((curve for curve in block.views(kind) if curve.text("class") == class_name), View({}))


def _points(curve: View, x: str, y: str) -> list[tuple[float, float]]:
    return list(zip(curve.numbers(x), curve.numbers(y), strict=False))


def _rates(block: View, class_name: str, classes: list[str]) -> tuple[float, float] | None:
    """Return (false positive rate, true positive rate) of the decisions on `class_name`, from the confusion matrix."""
    matrix = block.rows("confusion")
    if class_name not in classes or len(matrix) != len(classes) or any(len(row) != len(classes) for row in matrix):
        return None
    k = classes.index(class_name)
    positives, predicted, everything = sum(matrix[k]), sum(row[k] for row in matrix), sum(map(sum, matrix))
    negatives = everything - positives
    return ((predicted - matrix[k][k]) / negatives, matrix[k][k] / positives) if positives and negatives else None

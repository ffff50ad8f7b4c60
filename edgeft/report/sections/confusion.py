"""Confusion matrices: true class by row, decision by column; large label sets as their largest confusions."""

from collections.abc import Sequence

from edgeft.report.blocks import absent, name, note, table
from edgeft.report.markup import Markup, element, join
from edgeft.report.numbers import count, percent, span
from edgeft.report.reading import View
from edgeft.report.sentences import GATE_INTERVAL
from edgeft.verify.inspection import Rate, inspection

_LARGEST_MATRIX = 12
_TOP = 20
_SHADES = 9


def confusion(blocks: Sequence[tuple[str, View]], classes: Sequence[str], ok_class: str) -> Markup:
    """Return a matrix for each of `blocks`, and what it means on the line where a class is that of good parts."""
    matrices = [(candidate, block.rows("confusion")) for candidate, block in blocks]
    square = [(candidate, matrix) for candidate, matrix in matrices if _is_square(matrix, len(classes))]
    if not square:
        return join(element("h3", "Confusion"), absent("No confusion matrix was recorded."))
    draw = _matrix if len(classes) <= _LARGEST_MATRIX else _largest
    return join(
        element("h3", "Confusion"),
        element("div", *(draw(candidate, matrix, classes) for candidate, matrix in square), class_="panels"),
        _inspection(square, classes, ok_class),
        note("Test split. Below each count: its share of the true class."),
    )


def _is_square(matrix: list[list[float]], size: int) -> bool:
    return size > 0 and len(matrix) == size and all(len(row) == size for row in matrix)


def _matrix(candidate: str, matrix: list[list[float]], classes: Sequence[str]) -> Markup:
    head = element(
        "tr",
        element("td", "true \u2193  decided \u2192", class_="corner"),
        *(element("th", name(c), scope="col") for c in classes),
    )
    body = [
        element("tr", element("th", name(classes[i]), scope="row"), *(_cell(i, j, row) for j in range(len(classes))))
        for i, row in enumerate(matrix)
    ]
    caption = element("caption", f"{candidate}, n = {count(sum(map(sum, matrix)))}")
    return element(
        "div", element("table", caption, element("tbody", head, *body), class_="matrix"), class_="scroll", tabindex="0"
    )


def _cell(i: int, j: int, row: list[float]) -> Markup:
    total = sum(row)
    share = row[j] / total if total else 0.0
    kind = "right" if i == j else "wrong"
    return element(
        "td",
        element("strong", count(row[j])),
        element("span", percent(share) if total else "no image"),
        class_=f"{kind} shade-{round(_SHADES * share)}",
    )


def _largest(candidate: str, matrix: list[list[float]], classes: Sequence[str]) -> Markup:
    wrong = [(row[j], i, j) for i, row in enumerate(matrix) for j in range(len(row)) if i != j and row[j]]
    wrong.sort(key=lambda cell: (-cell[0], cell[1], cell[2]))
    rows = [[name(classes[i]), name(classes[j]), count(n), percent(n / sum(matrix[i]))] for n, i, j in wrong[:_TOP]]
    total = count(sum(map(sum, matrix)))
    caption = (
        f"{candidate}: the {len(rows)} largest of {len(wrong)} confusions between {len(classes)} classes, n = {total}"
    )
    return table(caption, ["true class", "decided", "images", "of the class"], rows, words=(1,))


def _inspection(
    square: Sequence[tuple[str, list[list[float]]]], classes: Sequence[str], ok_class: str
) -> Markup | None:
    """Say how many bad parts escape and how many good ones are stopped, by class where there are several."""
    if len(classes) < 2 or ok_class not in classes:  # noqa: PLR2004 - one class decides nothing
        return None
    rows = []
    for candidate, matrix in square:
        found = inspection(matrix, list(classes).index(ok_class))
        parts = {"bad parts that escape": found.escape, "good parts that are stopped": found.overkill}
        several = found.by_class if len(found.by_class) > 1 else {}
        parts |= {f"escape of {classes[index]}": each for index, each in several.items()}
        rows += [[name(what), candidate, *_rate(each)] for what, each in parts.items()]
    header = ["on the line", "model", "share", GATE_INTERVAL, "of"]
    return table("Escape and overkill, exact intervals (Clopper and Pearson)", header, rows, words=(1,))


def _rate(found: Rate) -> tuple[str, str, str]:
    interval = f"{span((found.low, found.high), 1, 100)} %"
    return percent(found.share), interval, f"{count(found.count)} of {count(found.n)}"

"""Confusion matrices: true class by row, decision by column; large label sets as their largest confusions."""

from collections.abc import Sequence

from edgeft.report.blocks import absent, name, note, table
from edgeft.report.markup import Markup, element, join
from edgeft.report.numbers import count, percent
from edgeft.report.reading import View

_LARGEST_MATRIX = 12
_TOP = 20
_SHADES = 9


def confusion(blocks: Sequence[tuple[str, View]], classes: Sequence[str], ok_class: str) -> Markup:
    """Return a matrix for each of `blocks`, and for two classes what they mean on the line: misses and false alarms."""
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
    """Say for a two-class inspection task how many bad parts pass and how many good ones are stopped."""
    if len(classes) != 2 or ok_class not in classes:  # noqa: PLR2004 - two classes
        return None
    ok = list(classes).index(ok_class)
    bad = 1 - ok
    sentences = [
        f"{candidate} misses {_part(matrix[bad], ok)} {classes[bad]} and stops {_part(matrix[ok], bad)} {classes[ok]}."
        for candidate, matrix in square
        if sum(matrix[bad]) and sum(matrix[ok])
    ]
    return element("ul", *(element("li", sentence) for sentence in sentences), class_="notes")


def _part(row: list[float], decided: int) -> str:
    """Return "20 of 164 (12.2 %)": how many of a true class were decided as class `decided`."""
    return f"{count(row[decided])} of {count(sum(row))} ({percent(row[decided] / sum(row))})"

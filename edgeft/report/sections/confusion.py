"""Confusion matrices: true class by row, decision by column; large label sets as their largest confusions."""

from collections.abc import Sequence

from edgeft.report.blocks import absent, name, note, table
from edgeft.report.markup import Content, Markup, element, join
from edgeft.report.numbers import count, percent, span
from edgeft.report.reading import View
from edgeft.report.sentences import GATE_INTERVAL

_LARGEST_MATRIX = 12
_TOP = 20
_SHADES = 9


def confusion(blocks: Sequence[tuple[str, View]], classes: Sequence[str]) -> Markup:
    """Return a matrix for each of `blocks`, and what it means on the line where a class is that of good parts."""
    matrices = [(candidate, block.rows("confusion")) for candidate, block in blocks]
    square = [(candidate, matrix) for candidate, matrix in matrices if _is_square(matrix, len(classes))]
    if not square:
        return join(element("h3", "Confusion"), absent("No confusion matrix was recorded."))
    draw = _matrix if len(classes) <= _LARGEST_MATRIX else _largest
    return join(
        element("h3", "Confusion"),
        element("div", *(draw(candidate, matrix, classes) for candidate, matrix in square), class_="panels"),
        _inspection(blocks),
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


def _inspection(blocks: Sequence[tuple[str, View]]) -> Markup | None:
    """Say how many bad parts escape and how many good ones are stopped, by class where there are several."""
    rows: list[list[Content]] = []
    for candidate, block in blocks:
        found = block.at("inspection")
        if not found:
            continue
        parts = {"bad parts that escape": found.at("escape"), "good parts that are stopped": found.at("overkill")}
        several = found.at("escape_by_class")
        if len(several.data) > 1:
            parts |= {f"escape of {each}": several.at(each) for each in several.data}
        if found.at("review").number("count"):
            parts |= {"parts for review": found.at("review"), "good parts for review": found.at("review_good")}
        rows += [[name(what), candidate, *rate_cells(each)] for what, each in parts.items()]
    if not rows:
        return None
    header = ["on the line", "model", "share", GATE_INTERVAL, "of"]
    return table("Escape and overkill, exact intervals (Clopper and Pearson)", header, rows, words=(1,))


def rate_cells(found: View) -> tuple[str, str, str]:
    """Return share, interval and counts of a rate."""
    hits, n = found.number("count") or 0, found.number("n") or 0
    interval = f"{span((found.number('low') or 0.0, found.number('high') or 0.0), 1, 100)} %"
    return percent(hits / n if n else None), interval, f"{count(hits)} of {count(n)}"

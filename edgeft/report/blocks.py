"""The pieces every section is made of: a titled section, a captioned table, a figure, a badge, a safe name."""

from collections.abc import Iterable, Sequence

from edgeft.core.record import Verdict
from edgeft.core.stage import Json
from edgeft.report.markup import Content, Markup, element, join
from edgeft.report.numbers import count
from edgeft.report.reading import FP32

_SIGNS = {Verdict.PASS: "\u2713", Verdict.FAIL: "\u2715", Verdict.INCONCLUSIVE: "?"}
_OTHER_SERIES = 4


def section(anchor: str, title: str, *content: Content, lead: Content = None) -> Markup:
    """Return one section of the page; `lead` is what to take from it, in a sentence."""
    heading = f"{anchor}-title"
    return element(
        "section",
        element("h2", title, id=heading),
        element("p", lead, class_="lead") if lead else None,
        *content,
        id=anchor,
        aria_labelledby=heading,
    )


def absent(what: str) -> Markup:
    """Return the sentence that stands where a part of the record is missing: it says so, it does not vanish."""
    return element("p", what, class_="absent")


def note(*content: Content) -> Markup:
    """Return a sentence in small print."""
    return element("p", *content, class_="note")


def badge(verdict: str) -> Markup:
    """Return the verdict as a sign and a word in its colour; an unknown verdict stands as it is."""
    known = verdict in _SIGNS
    sign = element("span", _SIGNS[Verdict(verdict)], aria_hidden="true") if known else None
    return element("span", sign, " " if known else None, verdict, class_=f"badge {tone(verdict)}")


def tone(verdict: str) -> str:
    """Return the colour class of `verdict`."""
    return verdict.lower() if verdict in _SIGNS else "unjudged"


def name(text: str) -> Markup:
    """Return a file or class name: wrapped so that right-to-left text cannot reorder what stands beside it."""
    return element("bdi", text, class_="name")


def digest(hexadecimal: str, shown: int = 12) -> Markup:
    """Return a digest, shortened to `shown` digits with the whole in its title."""
    return element("code", hexadecimal[:shown], title=hexadecimal, class_="digest")


def table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[Content]], *, words: Sequence[int] = ()
) -> Markup:
    """Return a table with a caption, scrolling sideways on its own where the page is narrow.

    Args:
        caption: what the table shows and on what it was measured.
        header: column names.
        rows: cells; the first of each row names it.
        words: columns that hold text (left-aligned); the others hold numbers. The first always holds text.
    """
    text_columns = {0, *words}

    def cell(index: int, content: Content) -> Markup:
        class_ = None if index in text_columns else "number"
        if index == 0:
            return element("th", content, scope="row")
        return element("td", content, class_=class_)

    head = [
        element("th", title, scope="col", class_=None if i in text_columns else "number")
        for i, title in enumerate(header)
    ]
    body = [element("tr", *(cell(index, content) for index, content in enumerate(row))) for row in rows]
    return element(
        "div",
        element("table", element("caption", caption), element("thead", element("tr", *head)), element("tbody", *body)),
        class_="scroll",
        role="region",
        aria_label=caption,
        tabindex="0",
    )


def figure(drawing: Markup, caption: Content, *, class_: str = "") -> Markup:
    """Return a drawing with its caption."""
    return element(
        "figure",
        element("div", drawing, class_="canvas"),
        element("figcaption", caption),
        class_=f"figure {class_}".strip(),
    )


def facts(pairs: Iterable[tuple[str, Content]]) -> Markup:
    """Return names and values as a definition list."""
    return element(
        "dl", *(element("div", element("dt", key), element("dd", value)) for key, value in pairs), class_="facts"
    )


def series(candidate: str, chosen: str, index: int = 0) -> str:
    """Return the colour class of a candidate: fp32 and the chosen one look the same in every figure."""
    if candidate == FP32:
        return "s-fp32"
    return "s-chosen" if candidate == chosen else f"s-other-{index % _OTHER_SERIES}"


def legend(entries: Iterable[tuple[str, str]]) -> Markup:
    """Return (text, colour class) pairs as a key."""
    swatches = (
        element("li", element("span", class_=f"swatch {class_}", aria_hidden="true"), text) for text, class_ in entries
    )
    return element("ul", *swatches, class_="legend")


def listed(names: Sequence[str], limit: int = 12) -> Markup:
    """Return names separated by commas, at most `limit`, saying how many were left out."""
    shown = [name(text) for text in names[:limit]]
    body = join(*(join(", " if index else None, item) for index, item in enumerate(shown)))
    rest = len(names) - len(shown)
    return join(body, f" and {count(rest)} more" if rest > 0 else None)


def plain(value: Json) -> str:
    """Return a JSON value as text for a table cell: lists joined, objects as "key value" pairs."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items()) or "none"
    return str(value)

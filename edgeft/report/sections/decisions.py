"""Rows that two models decide otherwise, as cards: a picture or the text, the truth, and both decisions."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgeft.report.blocks import name, note
from edgeft.report.markup import Markup, element, join
from edgeft.report.numbers import count, fixed
from edgeft.report.pictures import Pictures
from edgeft.report.reading import View

_SHOWN = 24
_TEXT = 400
"""Characters of a text that are shown."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models.

    Args:
        before: key of the first one's decision in each row.
        after: key of the second one's.
        first: what the first one is called.
        second: what the second one is called.
    """

    before: str
    after: str
    first: str
    second: str


def grouped(found: Sequence[View], pair: Pair, pictures: Pictures) -> list[Markup]:
    """Return the rows in groups: harmful, helpful, neither; empty groups are left out."""
    groups = (
        ("Harmful", f"{pair.first} was right, {pair.second} is wrong", "fail", harmful(found)),
        ("Helpful", f"{pair.first} was wrong, {pair.second} is right", "pass", helpful(found, pair)),
        (
            "Neither",
            "both are wrong, in different ways",
            "unjudged",
            [row for row in found if not row.flag("harmful") and not _is_helpful(row, pair)],
        ),
    )
    return [_group(title, what, tone, rows, pair, pictures) for title, what, tone, rows in groups if rows]


def harmful(found: Sequence[View]) -> list[View]:
    """Return the rows that the first model decides right."""
    return [row for row in found if row.flag("harmful")]


def helpful(found: Sequence[View], pair: Pair) -> list[View]:
    """Return the rows that the second model decides right."""
    return [row for row in found if _is_helpful(row, pair)]


def _is_helpful(row: View, pair: Pair) -> bool:
    return row.flag("harmful") is False and row.text(pair.after) == row.text("label")


def _group(title: str, what: str, tone: str, rows: Sequence[View], pair: Pair, pictures: Pictures) -> Markup:
    cards = [_card(row, tone, pair, pictures) for row in rows[:_SHOWN]]
    rest = (
        note(f"The first {_SHOWN} of {count(len(rows))} are shown; report.json lists all.")
        if len(rows) > _SHOWN
        else None
    )
    heading = element("h3", f"{title} ({count(len(rows))}) ", element("span", what, class_="soft"))
    return join(heading, element("ul", *cards, class_="flips"), rest)


def _card(row: View, tone: str, pair: Pair, pictures: Pictures) -> Markup:
    uri = pictures.data_uri(row.text("thumbnail"))
    words = f"{row.text('path')}, true class {row.text('label')}"
    if text := row.text("text"):
        picture = element("blockquote", name(text if len(text) <= _TEXT else f"{text[:_TEXT]}..."))
    else:
        picture = element("img", src=uri, alt=words) if uri else element("div", "picture not kept", class_="no-picture")
    both = ((pair.first, pair.before), (pair.second, pair.after))
    decided = [element("span", element("b", f"{who} "), name(row.text(key)), _score(row, key)) for who, key in both]
    return element(
        "li",
        picture,
        element("p", element("span", element("b", "true "), name(row.text("label"))), *decided),
        element("p", name(row.text("path")), class_="path"),
        class_=f"flip {tone}",
    )


def _score(row: View, key: str) -> str:
    value = row.number(f"{key}_score")
    return "" if value is None else f" {fixed(value, 3)}"

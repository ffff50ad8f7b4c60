"""Markdown as values: text is escaped so that a class called `a|b` or `<script>` stays what it is."""

import re
from collections.abc import Iterable, Sequence

from edgeft.report.markup import writable

_SPECIAL = re.compile(r"([\\`*_\[\]|~])")


def escape(text: str) -> str:
    """Return `text` on one line with nothing that Markdown or the HTML inside it would act on."""
    flat = " ".join(writable(text).split())
    return _SPECIAL.sub(r"\\\1", flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Return a table of escaped cells; columns from index `words` on are right-aligned."""
    rule = ["---" if index < words else "---:" for index in range(len(header))]
    lines = [[escape(cell) for cell in header], rule, *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code_block(text: str, language: str) -> str:
    """Return `text` in a fence longer than any run of backticks inside it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{writable(text).rstrip()}\n{fence}"

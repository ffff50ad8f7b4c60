"""HTML, SVG and XML built as values: text is escaped because it is text, only `Markup` passes unchanged.

So no section can forget to escape a file name or a class name: there is no way to insert raw text but to say `Markup`.
"""

import html
import re
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

_VOID = frozenset({"br", "col", "img", "meta"})
# Control characters and lone surrogates (file names that are not UTF-8) can stand neither in XML nor in UTF-8 output.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Content: TypeAlias = "str | Iterable[Content] | None"
"""Text (escaped), `Markup` (as it is), nested iterables of both, or nothing."""


def writable(text: str) -> str:
    """Return `text` with what neither XML nor UTF-8 can hold replaced by U+FFFD."""
    return _UNWRITABLE.sub("\ufffd", text)


def escape(text: str) -> Markup:
    """Return `text` safe between tags and inside quoted attributes."""
    return Markup(html.escape(writable(text), quote=True))


def join(*content: Content) -> Markup:
    """Return `content` as one piece of markup."""
    parts: list[str] = []
    for item in content:
        if isinstance(item, Markup):
            parts.append(item)
        elif isinstance(item, str):
            parts.append(escape(item))
        elif item is not None:
            parts.extend(join(part) for part in item)
    return Markup("".join(parts))


def element(name: str, /, *content: Content, **attributes: str | float | None) -> Markup:
    """Return `<name attributes>content</name>`.

    Args:
        name: the tag; void HTML tags are closed by themselves.
        content: children.
        attributes: values are escaped, None is left out; `class_` is `class`, other underscores become hyphens.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*content)}</{name}>")


def _number(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) else f"{value:.2f}".rstrip("0").rstrip(".")

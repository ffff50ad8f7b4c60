"""Tokens of the small expression language, and errors that point at a place in the text."""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from edgeft.core.errors import UsageError

MAX_LENGTH = 2000
"""Longest expression that is read."""
MAX_TOKENS = 200
"""Most tokens; evaluation nests a few calls for each."""

Kind: TypeAlias = Literal["number", "string", "name", "quoted", "word", "symbol", "end"]
WORDS = frozenset({"and", "or", "not", "in", "else", "true", "false"})

_PATTERN = re.compile(
    r"""(?P<blank>\s+)
      | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)? | \.\d+(?:[eE][+-]?\d+)?)
      | (?P<string>'[^']*' | "[^"]*")
      | (?P<quoted>`[^`]+`)
      | (?P<name>[^\W\d]\w*)
      | (?P<symbol>-> | == | != | <= | >= | // | [<>+\-*/%(),])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token.

    Args:
        kind: "word" is a reserved word, "quoted" a column name in backticks, "end" the end of the text.
        text: without quotes.
        at: offset of its first character.
    """

    kind: Kind
    text: str
    at: int


def pointed(source: str, at: int, message: str) -> str:
    """Return `message` with `source` below it and a caret under offset `at`."""
    return f"{message}\n  {source}\n  {' ' * at}^"


def tokenize(source: str) -> list[Token]:
    """Split `source` into tokens; the last one has kind "end".

    Raises:
        UsageError: a character that no token starts with, an open quote, or the text is too long.
    """
    if len(source) > MAX_LENGTH:
        raise UsageError(f"the expression has {len(source)} characters, at most {MAX_LENGTH} are read")
    flat = re.sub(r"\s", " ", source)  # so that the caret stands under the right character
    tokens: list[Token] = []
    at = 0
    while at < len(flat):
        match = _PATTERN.match(flat, at)
        if match is None:
            quote = flat[at] in "'\"`"
            reason = "the quote is not closed" if quote else f"unexpected character {flat[at]!r}"
            hint = "use == to compare" if flat[at] == "=" else None
            raise UsageError(pointed(flat, at, reason), hint=hint)
        if match.lastgroup != "blank":
            tokens.append(_token(str(match.lastgroup), match.group(), at))
        at = match.end()
    if len(tokens) > MAX_TOKENS:
        raise UsageError(f"the expression has {len(tokens)} words and signs, at most {MAX_TOKENS} are read")
    return [*tokens, Token("end", "end of the expression", len(flat))]


def _token(group: str, text: str, at: int) -> Token:
    match group:
        case "string":
            return Token("string", text[1:-1], at)
        case "quoted":
            return Token("quoted", text[1:-1], at)
        case "number":
            return Token("number", text, at)
        case "name":
            return Token("word" if text in WORDS else "name", text, at)
        case _:
            return Token("symbol", text, at)

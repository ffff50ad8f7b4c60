"""The recursive-descent parser of the expression language; the grammar stands in `edgeft.data.expression`."""

import difflib
import math
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeAlias

from edgeft.core.errors import DataError, UsageError
from edgeft.data.cells import ARITHMETIC, COMPARISONS, FUNCTIONS, CellError, Row, Value, equal, number, truth
from edgeft.data.tokens import Token, pointed

INDEX = "index"
"""The name of the row's number."""
_MAX_DEPTH = 50

Node: TypeAlias = Callable[[Row], Value]
"""Gives an expression's value for a row."""


class RowError(Exception):
    """A row's cells do not fit the expression at offset `at`."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


def column(name: str, at: int) -> Node:
    """Return the node that reads the column `name`, mentioned at offset `at`."""

    def read(row: Row) -> Value:
        value = row[name]
        if value is None or value == "":
            raise RowError(f"column {name!r} is empty", at)
        return value

    return read


def _at(at: int, function: Callable[..., Value], *operands: Node) -> Node:
    """Apply `function` to the operands' values; what does not fit is reported at offset `at`."""

    def apply(row: Row) -> Value:
        try:
            return function(*(operand(row) for operand in operands))
        except (CellError, OverflowError) as error:
            raise RowError(str(error), at) from error

    return apply


def _is_in(value: Value, *options: Value) -> bool:
    return any(equal(value, option) for option in options)


def _not_in(value: Value, *options: Value) -> bool:
    return not _is_in(value, *options)


class Parser:
    """Recursive descent; each method reads one rule of the grammar and returns a closure that evaluates it."""

    def __init__(self, tokens: Sequence[Token], source: str, columns: Sequence[str]) -> None:
        self._tokens = tokens
        self._source = source
        self._columns = columns
        self._position = 0
        self._depth = 0

    def whole(self) -> Node:
        """Read the whole text.

        Raises:
            UsageError: the syntax is wrong.
            DataError: a column is unknown.
        """
        node = self._rule() if self._has_arrow() else self._or()
        if self._here.kind != "end":
            self._fail(f"unexpected {self._here.text!r}")
        return node

    @property
    def _here(self) -> Token:
        return self._tokens[self._position]

    def _has_arrow(self) -> bool:
        return any(token.kind == "symbol" and token.text == "->" for token in self._tokens)

    def _fail(self, message: str, at: int | None = None, hint: str | None = None) -> NoReturn:
        raise UsageError(pointed(self._source, self._here.at if at is None else at, message), hint=hint)

    def _take(self, *texts: str) -> Token | None:
        token = self._here
        if token.kind not in ("symbol", "word") or token.text not in texts:
            return None
        self._position += 1
        return token

    def _expect(self, text: str) -> Token:
        token = self._take(text)
        if token is None:
            self._fail(f"expected {text!r}, found {self._here.text!r}")
        return token

    def _rule(self) -> Node:
        arms: list[tuple[Node, str]] = []
        while True:
            last = self._last_class() if arms else None
            if last is not None:
                break
            start = self._here.at
            condition = _at(start, truth, self._or())
            self._expect("->")
            arms.append((condition, self._class()))
            if self._take("else") is None:
                break

        def decide(row: Row) -> Value:
            for holds, name in arms:
                if holds(row):
                    return name
            if last is None:
                raise RowError("no condition holds and there is no last else", len(self._source))
            return last

        return decide

    def _last_class(self) -> str | None:
        """Read a class that ends the rule; None where a further condition follows."""
        if self._here.kind == "end":
            self._fail("expected a class name or a further condition after else")
        return self._class() if self._tokens[self._position + 1].kind == "end" else None

    def _class(self) -> str:
        token = self._here
        if token.kind not in ("name", "string", "number", "quoted"):
            self._fail(f"expected a class name, found {token.text!r}", hint="put other names in quotes: 'my class'")
        self._position += 1
        return token.text

    def _or(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail(f"nested more than {_MAX_DEPTH} deep")
        node = self._and()
        while token := self._take("or"):
            node = self._either(token.at, node, self._and(), stop=True)
        self._depth -= 1
        return node

    def _and(self) -> Node:
        node = self._not()
        while token := self._take("and"):
            node = self._either(token.at, node, self._not(), stop=False)
        return node

    @staticmethod
    def _either(at: int, left: Node, right: Node, *, stop: bool) -> Node:
        first, second = _at(at, truth, left), _at(at, truth, right)
        return lambda row: stop if first(row) is stop else second(row)

    def _not(self) -> Node:
        negations = []
        while token := self._take("not"):
            negations.append(token)
        node = self._comparison()
        for token in reversed(negations):
            node = _at(token.at, lambda value: not truth(value), node)
        return node

    def _comparison(self) -> Node:
        left = self._sum()
        if token := self._take(*COMPARISONS):
            node = _at(token.at, COMPARISONS[token.text], left, self._sum())
            if self._here.text in COMPARISONS:
                self._fail("comparisons cannot be chained", hint="write: low <= x and x < high")
            return node
        if (token := self._take("in", "not")) is None:
            return left
        if token.text == "not":
            self._expect("in")
        self._expect("(")
        function = _not_in if token.text == "not" else _is_in
        return _at(token.at, function, left, *self._listed(self._sum))

    def _listed(self, item: Callable[[], Node]) -> list[Node]:
        items = [item()]
        while self._take(","):
            items.append(item())
        self._expect(")")
        return items

    def _sum(self) -> Node:
        return self._chain(self._product, "+", "-")

    def _product(self) -> Node:
        return self._chain(self._sign, "*", "/", "//", "%")

    def _chain(self, operand: Callable[[], Node], *operators: str) -> Node:
        node = operand()
        while token := self._take(*operators):
            node = _at(token.at, ARITHMETIC[token.text], node, operand())
        return node

    def _sign(self) -> Node:
        signs = []
        while token := self._take("-"):
            signs.append(token)
        node = self._primary()
        for token in reversed(signs):
            node = _at(token.at, lambda value: -number(value), node)
        return node

    def _primary(self) -> Node:
        token = self._here
        if self._take("("):
            node = self._or()
            self._expect(")")
            return node
        if self._take("true", "false"):
            return lambda _: token.text == "true"
        if token.kind not in ("number", "string", "name", "quoted"):
            self._fail(f"expected a value, found {token.text!r}")
        self._position += 1
        if token.kind == "string":
            return lambda _: token.text
        if token.kind == "number":
            constant = float(token.text)
            if not math.isfinite(constant):
                self._fail("the number is too large", token.at)
            constant = int(constant) if token.text.isdigit() else constant
            return lambda _: constant
        if token.kind == "name" and self._here.text == "(" and self._here.kind == "symbol":
            return self._call(token)
        return self._known_column(token)

    def _call(self, name: Token) -> Node:
        if name.text not in FUNCTIONS:
            self._fail(f"unknown function {name.text!r}", name.at, f"functions: {', '.join(FUNCTIONS)}")
        self._expect("(")
        arguments = self._listed(self._or)
        count, function = FUNCTIONS[name.text]
        if len(arguments) != count:
            self._fail(f"{name.text} takes {count} arguments, found {len(arguments)}", name.at)
        return _at(name.at, function, *arguments)

    def _known_column(self, name: Token) -> Node:
        if name.text in self._columns or name.text == INDEX:
            return column(name.text, name.at)
        nearest = difflib.get_close_matches(name.text, self._columns, n=1)
        meant = f"did you mean {nearest[0]}? " if nearest else ""
        raise DataError(
            pointed(self._source, name.at, f"unknown column {name.text!r}"),
            hint=f"{meant}columns: {', '.join([*self._columns, INDEX])}; text is written in quotes",
        )

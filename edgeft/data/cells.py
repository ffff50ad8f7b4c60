"""Values of table cells and of expressions: numbers, text, truth; and how text becomes a number or a class name.

A cell of a text table is text. It is read as a number where a number is asked for: beside `<`, in arithmetic, or when
it is compared with a number. So `probability >= 0.5` works on "0.75", and a class called "007" stays "007".
"""

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

Cell: TypeAlias = str | int | float | bool | None
"""What a table's cell holds; None is an empty one."""
Value: TypeAlias = str | int | float | bool
"""What an expression gives."""
Row: TypeAlias = Mapping[str, Cell]
"""One line of a table, by column name."""


class CellError(Exception):
    """A value does not fit the operation; the expression adds where."""


def number(value: Value) -> int | float:
    """Read `value` as a finite number.

    Raises:
        CellError: it is no number.
    """
    if isinstance(value, bool):
        raise CellError(f"expected a number, found {text(value)}")
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                raise CellError(f"expected a number, found {value!r}") from None
    if not math.isfinite(value):
        raise CellError(f"expected a finite number, found {value}")
    return value


def truth(value: Value) -> bool:
    """Return `value` where it is true or false.

    Raises:
        CellError: it is a number or text.
    """
    if not isinstance(value, bool):
        raise CellError(f"expected true or false (a comparison), found {value!r}")
    return value


def text(value: Value) -> str:
    """Return `value` as a class or group name: 3.0 is "3", true is "true", text loses blanks at its ends."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def equal(left: Value, right: Value) -> bool:
    """Compare as numbers where either side is a number, else as they are.

    Raises:
        CellError: a number is compared with text that is none, or with true or false.
    """
    if isinstance(left, bool) or isinstance(right, bool):
        return truth(left) == truth(right)
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    return number(left) == number(right)


COMPARISONS: Mapping[str, Callable[[Value, Value], bool]] = {
    "==": equal,
    "!=": lambda left, right: not equal(left, right),
    "<": lambda left, right: number(left) < number(right),
    "<=": lambda left, right: number(left) <= number(right),
    ">": lambda left, right: number(left) > number(right),
    ">=": lambda left, right: number(left) >= number(right),
}


def _divided(divide: Callable[[int | float, int | float], int | float]) -> Callable[[Value, Value], Value]:
    def checked(left: Value, right: Value) -> Value:
        if number(right) == 0:
            raise CellError("division by zero")
        return divide(number(left), number(right))

    return checked


ARITHMETIC: Mapping[str, Callable[[Value, Value], Value]] = {
    "+": lambda left, right: number(left) + number(right),
    "-": lambda left, right: number(left) - number(right),
    "*": lambda left, right: number(left) * number(right),
    "/": _divided(lambda left, right: left / right),
    "//": _divided(lambda left, right: left // right),
    "%": _divided(lambda left, right: left % right),
}


def _block(position: Value, size: Value) -> int:
    width = number(size)
    if width < 1:
        raise CellError(f"block size {width}: expected 1 or more")
    return math.floor(number(position) / width)


def _split_at(value: Value, separator: Value, *, before: bool) -> str:
    head, found, tail = text(value).partition(text(separator))
    if not found:
        raise CellError(f"{text(value)!r} holds no {text(separator)!r}")
    return head if before else tail


FUNCTIONS: Mapping[str, tuple[int, Callable[..., Value]]] = {
    "block": (2, _block),
    "before": (2, lambda value, separator: _split_at(value, separator, before=True)),
    "after": (2, lambda value, separator: _split_at(value, separator, before=False)),
    "folder": (1, lambda value: text(value).rpartition("/")[0]),
    "lower": (1, lambda value: text(value).lower()),
}
"""Number of arguments and function, by name."""

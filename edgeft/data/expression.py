"""Small safe expressions for labels and groups; nothing is ever handed to Python's `eval`.

    probability >= 0.5 -> defective else functional          a class by a condition
    score > 0.8 -> bad else score > 0.3 -> unsure else good  the first condition that holds
    block(index, 32)                                         a group: 32 neighbouring rows
    before(file, '_')                                        a group: the part number in the file name
    `Defect type`                                            a column whose name is no plain word

The grammar:

    rule       = condition "->" class { "else" condition "->" class } [ "else" class ] | or
    class      = name | string | number                      the class's own name, never a column
    or         = and { "or" and }
    and        = not { "and" not }
    not        = "not" not | comparison
    comparison = sum [ ( "==" | "!=" | "<" | "<=" | ">" | ">=" ) sum | [ "not" ] "in" "(" sum { "," sum } ")" ]
    sum        = product { ( "+" | "-" ) product }
    product    = sign { ( "*" | "/" | "//" | "%" ) sign }
    sign       = "-" sign | primary
    primary    = number | string | "true" | "false" | column | function "(" or { "," or } ")" | "(" or ")"

`index` is the row's number from 0, unless the table has a column of that name. Functions: block(number, size) is
floor(number / size); before(text, mark) and after(text, mark) cut at the first mark; folder(path); lower(text).
A row for which no condition holds and no last `else` stands is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edgeft.core.errors import DataError, UsageError
from edgeft.data.cells import Row, Value
from edgeft.data.parser import INDEX, Node, Parser, RowError, column
from edgeft.data.tokens import pointed, tokenize

__all__ = ["INDEX", "Expression", "parse"]


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression.

    Args:
        source: its text.
        key: the recipe key it came from, for messages.
        node: gives the value for a row.
    """

    source: str
    key: str
    node: Node

    def value(self, row: Row, where: str) -> Value:
        """Return the expression's value for `row`; `where` names the row in messages, e.g. "labels.csv line 12".

        Raises:
            DataError: a cell is empty or does not fit the operation.
        """
        try:
            return self.node(row)
        except RowError as error:
            raise DataError(pointed(self.source, error.at, f"{where}: {self.key}: {error}")) from error


def parse(source: str, columns: Sequence[str], key: str) -> Expression:
    """Parse `source`; a text that is exactly a column's name is that column.

    Args:
        source: the expression.
        columns: the table's column names.
        key: the recipe key it came from, for messages, e.g. "data.columns.label".

    Raises:
        UsageError: the syntax is wrong.
        DataError: a column is unknown; the message points at it and lists those there are.
    """
    if source in columns:
        return Expression(source, key, column(source, 0))
    try:
        return Expression(source, key, Parser(tokenize(source), source, columns).whole())
    except (UsageError, DataError) as error:
        raise type(error)(f"{key}: {error.message}", hint=error.hint) from error

"""A table in memory: columns by name, one sequence of cells each, and how its rows are called in messages."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeft.core.errors import DataError
from edgeft.data.cells import Cell, Row
from edgeft.data.expression import INDEX


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of equal length.

    Args:
        source: the file or folder it was read from.
        columns: cells by column name.
        where: how row i is called in messages, e.g. "labels.csv line 13".
        ignored: files that the source passed over, with the reason ("notes.txt: not an image").
    """

    source: Path
    columns: Mapping[str, Sequence[Cell]]
    where: Callable[[int], str]
    ignored: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The column names, in order."""
        return tuple(self.columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def rows(self) -> Iterator[Row]:
        """Give each row as a mapping; the row's number is `index` unless a column is called so."""
        for index, cells in enumerate(zip(*self.columns.values(), strict=True)):
            yield {INDEX: index, **dict(zip(self.columns, cells, strict=True))}


def checked_names(names: tuple[str, ...], source: Path) -> tuple[str, ...]:
    """Return `names` without blanks at their ends.

    Raises:
        DataError: a name is empty or stands twice.
    """
    clean = tuple(name.strip() for name in names)
    for position, name in enumerate(clean):
        if not name:
            raise DataError(f"{source}: column {position + 1} of the header has no name", hint="give columns.names")
        if name in clean[:position]:
            raise DataError(f"{source}: the column {name!r} stands twice in the header", hint="rename one of them")
    return clean

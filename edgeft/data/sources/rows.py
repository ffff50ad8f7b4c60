"""From a table's columns to labelled rows of images or texts: expressions applied, paths held inside the root."""

import difflib
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeft.core.errors import DataError
from edgeft.data.cells import Cell, Row, text
from edgeft.data.config import ColumnsConfig, LabelColumns
from edgeft.data.expression import Expression, parse
from edgeft.data.sources.delimited import read_delimited
from edgeft.data.sources.folder import SPLIT_NAMES, read_folder
from edgeft.data.sources.jsonl import read_json_lines
from edgeft.data.sources.parquet import read_parquet
from edgeft.data.sources.table import Table
from edgeft.data.text.config import TextColumns

TEXT_COLUMNS = ("text", "sentence", "review", "comment", "content", "body")
"""Columns taken for the text where `columns.text` is not given."""
INPUT_COLUMNS = ("path", "file", "filename", "image", "image_path")
"""Columns taken for the path where `columns.input` is not given, first found first."""
LABEL_COLUMNS = ("label", "class", "category", "target")
"""Columns taken for the label where `columns.label` is not given."""
_NAMED = 5
_MOST_SLICES = 50


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One labelled image or text.

    Args:
        path: of an image, relative to the images' root, with "/"; of a text how its row is called.
        label: the class's name.
        group: images of one group stay together; the path where there are no groups.
        split: train, val or test where the source says so.
        where: how the row is called in messages.
        slices: what it belongs to, by the name of the slice.
        text: of a text; None of an image.
        pair: the second text, where two are judged together.
    """

    path: str
    label: str
    group: str
    split: str | None
    where: str
    slices: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    pair: str | None = None


def read_table(source: Path, *, delimiter: str | None, names: tuple[str, ...] | None, single: bool = False) -> Table:
    """Read a folder tree or a table by what `source` is; `single`: a delimited table of one column will do.

    Raises:
        DataError: it does not exist or cannot be read.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder", hint="check data.source; it is relative to the recipe")
    try:
        if source.is_dir():
            return read_folder(source)
        if source.suffix.lower() in (".parquet", ".pq"):
            return read_parquet(source)
        if source.suffix.lower() in (".jsonl", ".ndjson"):
            return read_json_lines(source)
        return read_delimited(source, delimiter, names, single=single)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error


def read_rows(table: Table, root: Path, columns: ColumnsConfig) -> tuple[SourceRow, ...]:
    """Apply the column mapping to `table`.

    Args:
        table: the source's columns.
        root: the folder that paths are relative to.
        columns: which columns mean what.

    Raises:
        DataError: a column is missing, a cell does not fit, a path leaves `root`, or files are missing.
        UsageError: an expression's syntax is wrong.
    """
    path_column = named_column(columns.input, INPUT_COLUMNS, table, "input")
    rows = _labelled(table, columns, lambda row, where: {"path": inside(root, row[path_column], where)})
    _refuse_missing(rows, root)
    return rows


def read_texts(table: Table, columns: TextColumns) -> tuple[SourceRow, ...]:
    """Apply the column mapping to `table`; a row's path is what it is called.

    Raises:
        DataError: a column is missing, or a cell does not fit.
        UsageError: an expression's syntax is wrong.
    """
    text_column = named_column(columns.text, TEXT_COLUMNS, table, "text")
    pair_column = None if columns.pair is None else named_column(columns.pair, (), table, "pair")

    def texts(row: Row, where: str) -> dict[str, str | None]:
        pair = None if pair_column is None else plain_text(row[pair_column])
        return {"path": where, "text": plain_text(row[text_column]), "pair": pair}

    return _labelled(table, columns, texts)


def plain_text(cell: Cell) -> str:
    """Return the cell's text; "" where it is empty."""
    return "" if cell is None else str(cell)


def _labelled(
    table: Table, columns: LabelColumns, inputs: Callable[[Row, str], Mapping[str, str | None]]
) -> tuple[SourceRow, ...]:
    label = parse(columns.label or _first_of(LABEL_COLUMNS, table, "label"), table.names, "data.columns.label")
    group = parse(columns.group, table.names, "data.columns.group") if columns.group else None
    split = _split_expression(columns.split, table)
    slices = {
        name: parse(source, table.names, f"data.columns.slices.{name}") for name, source in columns.slices.items()
    }
    rows = []
    for index, row in enumerate(table.rows()):
        where = table.where(index)
        found: Mapping[str, Any] = inputs(row, where)
        name = _text(label, row, where)
        rows.append(
            SourceRow(
                **found,
                label=name,
                group=found["path"] if group is None else _text(group, row, where),
                split=None if split is None else _split_name(split, row, where),
                where=where,
                slices={name: _text(expression, row, where) for name, expression in slices.items()},
            )
        )
    _refuse_fine_slices(rows)
    return tuple(rows)


def inside(root: Path, value: object, where: str) -> str:
    """Return the path `value` relative to `root`, with "/" and without "." and "..".

    Links below `root` are the user's own and are followed; the text of the path itself may not lead out.

    Raises:
        DataError: it is no text, empty, holds a NUL, or leads out of `root`.
    """
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise DataError(f"{where}: the image's path is {value!r}, expected text", hint="check data.columns.input")
    base = posixpath.abspath(root.as_posix())
    full = posixpath.normpath(posixpath.join(base, value.strip()))
    if not full.startswith(base.rstrip("/") + "/"):
        raise DataError(
            f"{where}: the path {value!r} leads out of {root}",
            hint="images must stand below data.images; move them there or set data.images to a folder above",
        )
    return posixpath.relpath(full, base)


def _first_of(candidates: tuple[str, ...], table: Table, key: str) -> str:
    for name in candidates:
        if name in table.columns:
            return name
    raise DataError(
        f"{table.source}: no column is called {', '.join(candidates)}; it has {', '.join(table.names)}",
        hint=f"say which one it is: data.columns.{key}",
    )


def named_column(name: str | None, candidates: tuple[str, ...], table: Table, key: str) -> str:
    """Return the column `name`, or where none is named the first of `candidates` that the table has.

    Raises:
        DataError: it has none of them.
    """
    if name is None:
        return _first_of(candidates, table, key)
    if name not in table.columns:
        nearest = difflib.get_close_matches(name, table.names, n=1)
        raise DataError(
            f"{table.source}: unknown column {name!r} (data.columns.{key}); it has {', '.join(table.names)}",
            hint=f"did you mean {nearest[0]}?" if nearest else None,
        )
    return name


def _split_expression(source: str | None, table: Table) -> Expression | None:
    if source is None and table.source.is_dir() and "split" in table.columns:
        source = "split"
    return None if source is None else parse(source, table.names, "data.columns.split")


def _text(expression: Expression, row: Row, where: str) -> str:
    name = text(expression.value(row, where))
    if not name:
        raise DataError(f"{where}: {expression.key} gives an empty name")
    return name


def _split_name(expression: Expression, row: Row, where: str) -> str:
    name = _text(expression, row, where)
    if name.lower() not in SPLIT_NAMES:
        raise DataError(f"{where}: split {name!r}, expected train, val or test", hint="map it with an expression")
    return SPLIT_NAMES[name.lower()]


def _refuse_fine_slices(rows: Sequence[SourceRow]) -> None:
    for name in rows[0].slices if rows else ():
        values = {row.slices[name] for row in rows}
        if len(values) > _MOST_SLICES:
            raise DataError(
                f"data.columns.slices.{name}: {len(values)} different values, at most {_MOST_SLICES} are told apart",
                hint="a rate needs many images of each: give a coarser column or an expression",
            )


def _refuse_missing(rows: Sequence[SourceRow], root: Path) -> None:
    missing = [row for row in rows if not (root / row.path).exists()]
    if not missing:
        return
    named = "".join(f"\n  {row.where}: {row.path}" for row in missing[:_NAMED])
    more = f"\n  and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    backslash = any("\\" in row.path for row in missing)
    raise DataError(
        f"{len(missing)} of {len(rows)} image files are missing below {root}:{named}{more}",
        hint="write the paths with / instead of \\" if backslash else "set data.images to the folder they stand in",
    )

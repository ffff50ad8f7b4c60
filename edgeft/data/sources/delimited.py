"""CSV, TSV and whitespace-separated tables.

The delimiter is the first of comma, tab, semicolon, bar and blanks that cuts every one of the first lines into the same
number (at least two, unless one column will do) of fields. Quoted fields may hold it.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from edgeft.core.errors import DataError
from edgeft.data.sources.table import Table, checked_names

MAX_BYTES = 1 << 28
"""Largest table file that is read (256 MiB)."""
BLANKS = " "
"""The delimiter that stands for any run of spaces and tabs."""
_CANDIDATES = (",", "\t", ";", "|", BLANKS)
_SAMPLE_LINES = 200
_IMAGE_LIKE = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}

_Record = tuple[int, list[str]]


def read_delimited(path: Path, delimiter: str | None, names: tuple[str, ...] | None, *, single: bool = False) -> Table:
    """Read the text table at `path`.

    Args:
        path: a UTF-8 file.
        delimiter: one character; " " for blanks; None to find it.
        names: column names of a table without a header line; None where the first line is the header.
        single: whether a table of one column will do; a comma in it is quoted.

    Raises:
        DataError: the file is no UTF-8 text, too large or empty, no delimiter fits, a line has more or fewer fields
            than there are columns, or the header looks like data.
    """
    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path}: the table is empty")
    found = delimiter or _find_delimiter(text, path, len(names) if names else None, single=single)
    records = _records(text, found, path)
    if names is None:
        _, header = next(records)
        _refuse_data_as_header(header, path)
        names = tuple(header)
    columns = checked_names(names, path)
    lines: list[int] = []
    cells: list[list[str]] = []
    for line, fields in records:
        if len(fields) != len(columns):
            raise DataError(
                f"{path} line {line}: {len(fields)} fields, expected {len(columns)} ({', '.join(columns)})",
                hint=f"the delimiter is {found!r}; set data.delimiter or data.columns.names if that is wrong",
            )
        lines.append(line)
        cells.append(fields)
    if not cells:
        raise DataError(f"{path}: the table has a header and no rows")
    by_column = {name: [row[i] for row in cells] for i, name in enumerate(columns)}
    return Table(path, by_column, lambda index: f"{path.name} line {lines[index]}")


def read_text(path: Path) -> str:
    """Return the UTF-8 text at `path`, without a byte order mark.

    Raises:
        DataError: it is larger than `MAX_BYTES`, or no UTF-8.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise DataError(f"{path}: {size} bytes, at most {MAX_BYTES} are read", hint="store large tables as Parquet")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} is not UTF-8 text",
            hint="save the table as UTF-8; a Parquet table needs the suffix .parquet",
        ) from error


def _records(text: str, delimiter: str, path: Path) -> Iterator[_Record]:
    """Give (line number, fields) of each line that is not blank."""
    if delimiter == BLANKS:
        for line, content in enumerate(text.splitlines(), 1):
            if content.strip():
                yield line, [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', content)]
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, [field.strip() for field in fields]
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: {error}", hint="check the quotes on that line") from error


def _find_delimiter(text: str, path: Path, expected: int | None, *, single: bool) -> str:
    counts = {candidate: _field_counts(text, candidate, path) for candidate in _CANDIDATES}
    for candidate, found in counts.items():
        if len(found) == 1 and min(found) > 1 and expected in (None, *found):
            return candidate
    if single and counts[_CANDIDATES[0]] == {1}:
        return _CANDIDATES[0]
    wanted = f"{expected} columns (data.columns.names)" if expected else "the same number of columns"
    seen = "; ".join(f"{candidate!r} gives {sorted(found)}" for candidate, found in counts.items() if max(found) > 1)
    raise DataError(
        f"{path}: no delimiter cuts the first lines into {wanted}: {seen or 'there is one column only'}",
        hint="set data.delimiter, and data.columns.names where there is no header",
    )


def _field_counts(text: str, delimiter: str, path: Path) -> set[int]:
    """Return the numbers of fields on the first lines; {0} where the delimiter breaks the quoting."""
    counts: set[int] = set()
    try:
        for position, (_, fields) in enumerate(_records(text, delimiter, path)):
            if position == _SAMPLE_LINES:
                break
            counts.add(len(fields))
    except DataError:
        return {0}
    return counts


def _refuse_data_as_header(header: list[str], path: Path) -> None:
    for field in header:
        if PurePosixPath(field).suffix.lower() in _IMAGE_LIKE:
            example = ", ".join(["file", "label", "more"][: len(header)])
            raise DataError(
                f"{path}: the first line looks like data ({field!r}), expected column names",
                hint=f"name the columns: data.columns.names: [{example}]",
            )

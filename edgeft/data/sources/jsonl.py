"""JSON lines: one object a line; its keys are the columns."""

import json
from pathlib import Path
from typing import Any

from edgeft.core.errors import DataError
from edgeft.data.sources.delimited import read_text
from edgeft.data.sources.table import Table, checked_names


def read_json_lines(path: Path) -> Table:
    """Read the JSON lines at `path`; blank lines are passed over.

    Raises:
        DataError: a line is no object of text, numbers and truth values with the keys of the first; names the line.
    """
    lines: list[int] = []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} line {number}: not JSON ({error})", hint="one object a line") from error
        if not isinstance(found, dict):
            raise DataError(f"{path} line {number}: {type(found).__name__}, expected an object")
        nested = next((key for key, value in found.items() if isinstance(value, list | dict)), None)
        if nested is not None:
            raise DataError(f"{path} line {number}: {nested!r} is nested, expected text, a number, true or false")
        if rows and set(found) != set(rows[0]):
            differing = ", ".join(sorted(set(found) ^ set(rows[0])))
            raise DataError(f"{path} line {number}: other keys than line {lines[0]} ({differing})")
        lines.append(number)
        rows.append(found)
    if not rows:
        raise DataError(f"{path}: holds no rows")
    names = checked_names(tuple(rows[0]), path)
    columns = {name: [row[key] for row in rows] for name, key in zip(names, rows[0], strict=True)}
    return Table(path, columns, lambda index: f"{path.name} line {lines[index]}")

"""Parquet tables, through pyarrow, which is imported only here."""

from pathlib import Path
from typing import Any

from edgeft.core.errors import DataError, DeviceError
from edgeft.data.sources.table import Table, checked_names


def read_parquet(path: Path) -> Table:
    """Read the columns of text, numbers and truth values; others (nested, binary) are left out.

    Raises:
        DataError: the file is no Parquet file or has no rows.
        DeviceError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DeviceError(f"{path}: reading Parquet needs pyarrow", hint="pip install 'edgeft[train]'") from error
    try:
        file = parquet.ParquetFile(path)
        names = checked_names(tuple(file.schema_arrow.names), path)
        wanted = [field.name for field in file.schema_arrow if _is_plain(pa.types, field.type)]
        content = file.read(columns=wanted).to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from error
    columns = {name.strip(): content[name] for name in wanted}
    if not columns or not next(iter(columns.values())):
        raise DataError(f"{path}: the table has no rows of plain columns (columns: {', '.join(names)})")
    return Table(path, columns, lambda index: f"{path.name} row {index}")


def _is_plain(types: Any, kind: Any) -> bool:  # noqa: ANN401 - pyarrow ships no type hints
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return any(test(kind) for test in tests)

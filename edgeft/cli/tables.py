"""Tables as plain text: rows of strings in aligned columns."""

import shutil
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

_LOG_COLUMNS = 160


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """Return a table of `rows` under `headings`; long cells wrap at the terminal's width.

    Args:
        headings: one per column.
        rows: one string per column each.
        right: the headings whose columns are aligned right (numbers).
    """
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        grid.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console = Console(width=shutil.get_terminal_size((_LOG_COLUMNS, 24)).columns, color_system=None, markup=False)
    with console.capture() as captured:
        console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())


def number(value: float) -> str:
    """Return four significant digits, without an exponent for everyday sizes: 0.7610, 1.524, 12.35, 256."""
    if value != value or value in {float("inf"), float("-inf")}:  # noqa: PLR0124 - NaN
        return "-"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e6):  # noqa: PLR2004 - plain integers
        return str(int(value))
    return f"{value:.4g}"


def seconds(value: float) -> str:
    """Return a duration a person reads at once: 0.3 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if value < 10:  # noqa: PLR2004 - below ten, tenths matter
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004 - seconds in an hour
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: float) -> str:
    """Return bytes as B, kB, MB or GB (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004 - SI step
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"

"""Where output goes: data to stdout, everything else to stderr."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping

import typer


def print_json(value: Mapping[str, object]) -> None:
    """Print `value` as one JSON object to stdout; NaN and infinities, which JSON lacks, become null."""
    typer.echo(json.dumps(_finite(value), ensure_ascii=False, indent=2, allow_nan=False, default=str))


def note(text: str) -> None:
    """Print one line to stderr."""
    typer.echo(text, err=True)


def conclude(table: str, answer: Mapping[str, object], path: str, *, as_json: bool) -> None:
    """Print what a long verb found: `table` to stderr; to stdout `answer` where JSON is asked for, else `path`.

    On a terminal the table has said the path already.
    """
    note(table)
    if as_json:
        print_json(answer)
    elif not sys.stdout.isatty():
        typer.echo(path)


@contextlib.contextmanager
def stdout_reserved() -> Iterator[None]:
    """Send what libraries print to stderr, so that stdout holds only the verb's data."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

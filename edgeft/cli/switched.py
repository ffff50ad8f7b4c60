"""What `edgeft activate` and `edgeft rollback` print."""

from collections.abc import Mapping
from typing import Any

import typer

from edgeft.cli.decisions import check_text
from edgeft.cli.terminal import print_json


def tell(found: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what was switched, as text or as one JSON object."""
    if as_json:
        print_json({"status": "ok", "exit_code": 0, **found})
    else:
        typer.echo(switch_text(found))


def switch_text(found: Mapping[str, Any]) -> str:
    """Return which version is active, which was, and which a rollback can reach."""
    was = f"{found['before']} before" if found["changed"] and found["before"] else "as before"
    lines = [
        check_text(found["check"]),
        f"active  {found['version']} ({was if found['before'] else 'the first'}), in {found['current']}",
        f"kept    {', '.join(found['kept']) or 'no earlier version'}",
    ]
    return "\n".join(lines)

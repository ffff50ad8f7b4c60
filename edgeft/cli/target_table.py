"""What `edgeft targets` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeft.cli.diagnosis import ability
from edgeft.cli.tables import table

_NONE = "no exporter is installed; from a source tree: pip install -e ."


def targets_text(found: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the targets, then why some do not run here and the commands that mend it."""
    if not found:
        return _NONE
    rows = [
        (item["name"], ability(item), item["activations"] or "", item["weights"] or "", item["distribution"])
        for item in found
    ]
    lines = [
        f"{item['name']}: {item['state']}" + (f"\n  {item['hint']}" if item["hint"] else "")
        for item in found
        if item["state"]
    ]
    return "\n\n".join([table(("target", "", "activations", "weights", "from"), rows), "\n".join(lines)])

"""The builds that a cache remembers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeft.cli.tables import number, seconds, table


def history(cache: Path) -> list[dict[str, Any]]:
    """Return one object per readable run record below `cache`, oldest first."""
    found = []
    for path in sorted((cache / "runs").glob("*/record.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            found.append({"run": path.parent.name, "status": "unreadable", "record": str(path), "reason": str(error)})
            continue
        found.append(_row(record, path))
    return sorted(found, key=lambda row: str(row.get("started", "")))


def history_text(listed: Sequence[Mapping[str, Any]]) -> str:
    """Return the table that `runs` prints."""
    if not listed:
        return "no builds yet"
    rows = [
        (
            row["run"],
            str(row.get("started", "")),
            row["status"],
            seconds(row["seconds"]) if "seconds" in row else "",
            f"{row['reused']} of {row['stages']}" if "stages" in row else "",
            "\n".join(_gates(row.get("gates", ()))),
            str(row.get("bundle") or row.get("reason") or ""),
        )
        for row in listed
    ]
    return table(("run", "started", "status", "took", "reused", "gates", "bundle"), rows, right=("took",))


def _gates(gates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line per gate; parity gates that passed, the rule, are left to the report."""
    shown = [gate for gate in gates if gate["verdict"] != "PASS" or not gate["name"].startswith("parity")]
    return [f"{gate['name']} {gate['verdict']} {number(gate['value'])} {gate['unit']}" for gate in shown]


def _row(record: Mapping[str, Any], path: Path) -> dict[str, Any]:
    stages = record["stages"]
    return {
        "run": record["run"],
        "started": record["started"],
        "status": record["status"],
        "exit_code": record["exit_code"],
        "seconds": record["seconds"],
        "stages": len(stages),
        "reused": sum(1 for stage in stages if stage["reused"]),
        "gates": [{name: gate[name] for name in ("name", "verdict", "value", "unit")} for gate in record["gates"]],
        "bundle": record["bundle"],
        "record": str(path),
    }

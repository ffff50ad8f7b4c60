"""What `build` tells at its end: stages, gates and where things are; from the run record's JSON alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeft.cli.tables import number, seconds, table

Record = Mapping[str, Any]


def build_object(record: Record) -> dict[str, Any]:
    """Return the object that `build --json` prints."""
    return {
        "status": record["status"],
        "exit_code": record["exit_code"],
        "run": record["run"],
        "bundle": record["bundle"],
        "report": record["report"],
        "gates": list(record["gates"]),
        "stages": list(record["stages"]),
        "measurements": {stage["name"]: stage["measurements"] for stage in record["stages"]},
    }


def build_text(record: Record) -> str:
    """Return the tables that end a build."""
    parts = [_stages(record["stages"]), _gates(record["gates"]), *_notes(record["stages"])]
    places = [f"{name:<7} {record[name]}" for name in ("bundle", "report") if record[name]]
    status = (
        f"{record['status']} in {seconds(record['seconds'])} (exit code {record['exit_code']}, run {record['run']})"
    )
    return "\n\n".join(["", *parts, "\n".join([*places, f"{'status':<7} {status}"])])


def interval(bounds: Sequence[float] | None) -> str:
    """Return "0.1 to 0.5", or "exact" where a value has no interval."""
    return "exact" if bounds is None else f"{number(bounds[0])} to {number(bounds[1])}"


def _stages(stages: Sequence[Record]) -> str:
    rows = [
        (
            stage["name"],
            stage["method"],
            "reused" if stage["reused"] else "ran",
            seconds(stage["seconds"]),
            stage["reason"],
        )
        for stage in stages
    ]
    return table(("stage", "method", "", "took", "because"), rows, right=("took",))


def _gates(gates: Sequence[Record]) -> str:
    rows = [
        (
            gate["name"],
            gate["verdict"],
            f"{number(gate['value'])} {gate['unit']}",
            interval(gate["interval"]),
            f"{number(gate['limit'])} {gate['unit']}",
            str(gate["n"]),
            gate["detail"],
        )
        for gate in gates
    ]
    return table(("gate", "verdict", "value", "interval", "limit", "n", ""), rows, right=("n",)) if rows else "no gates"


def _notes(stages: Sequence[Record]) -> list[str]:
    lines = [f"{stage['name']}: {text}" for stage in stages for text in stage["notes"]]
    return ["notes\n" + "\n".join(f"  {line}" for line in lines)] if lines else []

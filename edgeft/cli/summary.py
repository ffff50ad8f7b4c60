"""What `build`, `quantize` and `plan` tell, from the JSON of their record or plan alone: gates and where things are."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeft.cli.tables import number, seconds, size, table

Record = Mapping[str, Any]


def build_object(record: Record) -> dict[str, Any]:
    """Return the object that `build --json` prints."""
    named = ("status", "exit_code", "run", "bundle", "report", "gates", "stages")
    return {
        **{name: record[name] for name in named},
        "measurements": {stage["name"]: stage["measurements"] for stage in record["stages"]},
        **({"targets": record["targets"]} if record.get("targets") else {}),
        **({"device": record["device"]} if record.get("device") else {}),
        **({"below_teacher": taught} if (taught := _below_teacher(record)) else {}),
    }


def build_text(record: Record) -> str:
    """Return the tables that end a build."""
    places = [f"{name:<7} {record[name]}" for name in ("bundle", "report") if record[name]]
    places += [f"{'bundle':<7} {item['bundle']}" for item in record.get("targets", ())[1:]]
    if taught := _below_teacher(record):
        told = f"{taught['value_pp']:.1f} points of {taught['metric'].replace('_', ' ')} below its teacher"
        places.append(f"{'student':<7} {told} ({interval(taught['interval_pp'])})")
    if record.get("device"):
        places.append(f"{'device':<7} {record['device']['address']}: what ships was timed and replayed there")
    end = f"{record['status']} in {seconds(record['seconds'])}, exit code {record['exit_code']}, run {record['run']}"
    parts = [_stages(record["stages"]), *_notes(record["stages"]), gates_table(record["gates"])]
    return "\n\n".join(["", *parts, "\n".join([*places, f"{'status':<7} {end}"])])


def _below_teacher(record: Record) -> dict[str, Any]:
    """Return the drop from a student's teacher to what ships; empty where nothing was distilled."""
    found: dict[str, Any] = ((record.get("verify") or {}).get("distillation") or {}).get("drop") or {}
    return found


def quantize_object(record: Record) -> dict[str, Any]:
    """Return the object that `quantize --json` prints."""
    named = ("status", "exit_code", "verdict", "run", "out", "model", "report", "gates", "choice", "notes")
    kept = ("name", "file", "size_bytes", "validation", "unsafe_pairs", "method")
    return {
        **{name: record[name] for name in named},
        "candidates": [{name: item[name] for name in kept} for item in record["candidates"]["candidates"]],
        "float_ops": len(record["lint"]),
    }


def quantize_text(record: Record) -> str:
    """Return the tables that end a quantization."""
    notes = ["\n".join(["notes", *(f"  {text}" for text in record["notes"])])] if record["notes"] else []
    lint = [_lint(record["lint"])] if record["lint"] else []
    end = f"{record['status']} in {seconds(record['seconds'])}, exit code {record['exit_code']}, run {record['run']}"
    last = [
        f"{'model':<7} {record['model']}",
        f"{'report':<7} {record['report']}",
        f"{'verdict':<7} {record['verdict']}",
    ]
    parts = [_candidates(record), *notes, *lint, gates_table(record["gates"])]
    return "\n\n".join(["", *parts, "\n".join([*last, f"{'status':<7} {end}"])])


def plan_object(found: Record) -> dict[str, Any]:
    """Return the object that `plan --json` prints."""
    rows = [{**{k: v for k, v in row.items() if k != "runs"}, "will_run": row["runs"]} for row in found["rows"]]
    return {
        "status": "ok",
        "exit_code": 0,
        "stages": rows,
        "seconds": found["seconds"],
        "certifiable": found["certifiable"],
        "recipe": found["recipe"],
    }


def plan_text(found: Record) -> str:
    """Return the table of what would run, the time it would take, and what the test split can certify."""
    rows = [
        (
            row["stage"],
            row["method"],
            "runs" if row["runs"] else "reused",
            "" if row["seconds"] is None else seconds(row["seconds"]),
            row["reason"] if row["runs"] else "",
        )
        for row in found["rows"]
    ]
    total = found["seconds"]
    time = "not known: a stage has never run here" if total is None else f"about {seconds(total)}, latency not counted"
    certifiable = found["certifiable"]
    certify = certifiable["detail"] if certifiable else "known once data has run"
    return "\n\n".join(
        [
            table(("stage", "method", "", "estimate", "why"), rows, right=("estimate",)),
            f"time     {time}\ncertify  {certify}",
        ]
    )


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
            "" if stage["reused"] else stage["reason"],
        )
        for stage in stages
    ]
    return table(("stage", "method", "", "took", "why"), rows, right=("took",))


def gates_table(gates: Sequence[Record]) -> str:
    """Return the table of gates: verdict, value, interval, limit, n, and a sentence on each."""
    if not gates:
        return "no gates"
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
    return table(("gate", "verdict", "value", "interval", "limit", "n", ""), rows, right=("n",))


def _notes(stages: Sequence[Record]) -> list[str]:
    lines = [f"  {stage['name']}: {text}" for stage in stages for text in stage["notes"]]
    return ["\n".join(["notes", *lines])] if lines else []


def _candidates(record: Record) -> str:
    latency = record["choice"]["latency"]

    def cells(item: Record) -> dict[str, str]:
        name, found = item["name"], item["validation"]
        return {
            "candidate": f"{name} (ships)" if name == record["choice"]["chosen"] else name,
            "accuracy": _percent(found.get("value")),
            "drop, pp": f"{number(found['drop_pp'])} ({interval(found['drop_interval_pp'])})"
            if "drop_pp" in found
            else "",
            "equal decisions": _percent(found["agreement"]),
            "mean output error": number(found["mean_abs_logit_error"]),
            "SQNR, dB": "" if found["sqnr_db"] is None else f"{found['sqnr_db']:.1f}",
            "median, ms": f"{latency[name]['median_ms']:.3g}" if name in latency else "",
            "size": size(item["size_bytes"]),
            "n": str(found["n"]),
        }

    rows = [cells(item) for item in record["candidates"]["candidates"]]
    shown = [heading for heading in rows[0] if any(row[heading] for row in rows)]
    return table(shown, [[row[heading] for heading in shown] for row in rows], right=shown[1:])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


def _lint(findings: Sequence[Record]) -> str:
    rows = [
        (item["op_type"], item["node"], "by design" if item["expected"] else "", item["reason"]) for item in findings
    ]
    return table(("in float", "node", "", "why"), rows)

"""The tables that end `edgeft bench` and `edgeft compare`."""

from collections.abc import Mapping
from typing import Any

from edgeft.cli.summary import gates_table
from edgeft.cli.tables import number, seconds, size, table

Record = Mapping[str, Any]

_MISSING = "-"


def bench_text(record: Record) -> str:
    """Return the tables that end a benchmark."""
    found, subject = record["bench"], record["subject"]
    rows = [_row("model", found["model"])]
    if found["end_to_end"]:
        rows.append(_row("from raw data", found["end_to_end"]))
    headings = ("ms", "p50", "p90", "p99", "jitter", "samples")
    facts = [
        ("what", f"{subject['name']} ({subject['path']})"),
        ("how", f"{found['mode']}, {found['threads']} thread(s), batch 1, {found['inputs']}"),
        ("load", f"{found['load_ms']:.1f} ms, first inference {found['first_ms']:.2f} ms"),
        ("memory", f"{size(found['peak_rss_bytes'])} at most, {size(found['base_rss_bytes'])} of it before the model"),
        ("cpu", f"{found['cpu_share']:.2f} cores while it ran"),
        ("rate", "" if found["throughput_per_s"] is None else f"{found['throughput_per_s']:.1f} inferences/s"),
        ("energy", _energy(found)),
        ("code", _instructions(found)),
        ("paced", _paced(found)),
        ("soak", _soak(found)),
        ("kept", record["baseline"] or ""),
        ("device", f"{record['machine']['cpu']}, {record['machine']['cores']} cores{_where(record)}"),
    ]
    lines = [f"{name:<8} {text}" for name, text in facts if text]
    return "\n\n".join(["", table(headings, rows, right=headings[1:]), "\n".join(lines)])


def compare_text(record: Record) -> str:
    """Return the tables that end a comparison."""
    notes = ["\n".join(f"note     {text}" for text in record["notes"])] if record["notes"] else []
    end = f"{record['status']} in {seconds(record['seconds'])}, exit code {record['exit_code']}"
    return "\n\n".join(["", gates_table(record["gates"]), *notes, f"{'status':<8} {end}"])


def _row(name: str, latency: Record) -> tuple[str, ...]:
    quantiles = [_quantile(latency[each]) for each in ("p50", "p90", "p99")]
    return (name, *quantiles, number(latency["jitter_ms"]), str(latency["samples"]))


def _quantile(found: Record | None) -> str:
    if found is None:
        return _MISSING
    return f"{found['value_ms']:.3g} ({found['low_ms']:.3g} to {found['high_ms']:.3g})"


def _energy(found: Record) -> str:
    if found["energy_j"] is None:
        return "not measured: this machine shows no energy counter (RAPL)"
    return f"{1000 * found['energy_j']:.2f} mJ an inference, of the whole processor"


def _instructions(found: Record) -> str:
    if found["mode"] != "single":
        return ""
    if found["instructions"] is None:
        return "not measured: perf is missing or cannot count instructions here"
    return f"{found['instructions'] / 1e6:.2f} million instructions an inference"


def _paced(found: Record) -> str:
    if found["period_ms"] is None:
        return ""
    n = found["model"]["samples"]
    return f"{found['misses']} of {n} inferences took longer than the {found['period_ms']:g} ms to the next"


def _soak(found: Record) -> str:
    if found["mode"] != "soak":
        return ""
    slower = _MISSING if found["slowdown"] is None else f"{found['slowdown']:.3f}"
    return f"last tenth over first tenth {slower}; memory grew by {size(found['grown_bytes'])}"


def _where(record: Mapping[str, Any]) -> str:
    return f", {record['device']}" if record.get("device") else ""

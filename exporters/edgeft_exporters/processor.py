"""What a timing on a CPU depends on besides the runtime: model, instruction sets, cores."""

import os
import platform
from pathlib import Path

from edgeft.core.stage import Json

_CPUINFO = Path("/proc/cpuinfo")
_ISA = (
    *("sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni"),
    *("avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve"),
)
"""Flags that choose kernels: the last four of the first line decide whether int8 sums are exact."""


def processor(cpuinfo: Path = _CPUINFO) -> dict[str, Json]:
    """Return the facts of this CPU; the same on every call.

    Args:
        cpuinfo: Linux's description of the processors; where it is missing, the platform's own name is used.
    """
    facts = _first(cpuinfo)
    flags = set((facts.get("flags") or facts.get("features") or "").split())
    return {
        "architecture": platform.machine(),
        "cpu": facts.get("model name") or platform.processor() or "unknown",
        "isa": [flag for flag in _ISA if flag in flags],
        "cores": _usable_cores(),
    }


def _first(cpuinfo: Path) -> dict[str, str]:
    """Return the first processor's fields, names in lower case."""
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return {}
    fields = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip().lower(): value.strip() for name, _, value in fields}


def _usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""Facts of this machine that a timing, or a bit pattern, may depend on. Linux files are read where they exist."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from edgeft.core.stage import Json

_ISA = (
    *("sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni"),
    *("amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
_ROOT = Path("/")
_NVIDIA_S = 20.0


def threads() -> int:
    """Return how many CPU threads this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu(root: Path = _ROOT) -> dict[str, Json]:
    """Return the facts that do not change between two runs on this machine: a cache key may hold them.

    Args:
        root: where proc/cpuinfo and proc/device-tree/model are looked for. An Arm board names its processor in the
            latter alone.
    """
    fields = _cpuinfo(root)
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    board = (_read(root / "proc/device-tree/model") or "").strip("\0")
    return {
        "cpu": fields.get("model name") or board or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "isa": [flag for flag in _ISA if flag in flags],
        "cores": threads(),
    }


def facts() -> dict[str, Json]:
    """Return `cpu()` and what else a reader of a report wants to know about this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        **cpu(),
        "memory_bytes": memory,
        "governor": _read(_ROOT / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "gpu": gpu(),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()).strip(),
        "python": sys.version.split()[0],
    }


def gpu(root: Path = _ROOT, nvidia_smi: str | None = None) -> str | None:
    """Return the NVIDIA GPUs and the driver's version in words, or None where there is none.

    Args:
        root: where proc/driver/nvidia is looked for, if nvidia-smi does not answer.
        nvidia_smi: the program; None is the one on the path.
    """
    told = _ask(nvidia_smi or shutil.which("nvidia-smi"))
    if told:
        return "; ".join(told)
    cards = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line.partition(":") for card in cards for line in (_read(card) or "").splitlines()]
    return "; ".join(value.strip() for name, _, value in lines if name.strip() == "Model") or None


def _ask(nvidia_smi: str | None) -> list[str]:
    """Return one line for each GPU, as nvidia-smi names it; none where it is not there or has nothing to show."""
    if nvidia_smi is None:
        return []
    command = [nvidia_smi, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 - an argument list, no shell
            command, capture_output=True, text=True, check=False, timeout=_NVIDIA_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _cpuinfo(root: Path) -> dict[str, str]:
    text = _read(root / "proc/cpuinfo") or ""
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None

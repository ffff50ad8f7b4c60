"""How fast is one model on this device: fresh processes, every sample kept, intervals where there are samples for them.

single   the next image is taken when the last is done: the shortest latency, and the throughput
paced    an image comes every period; a sample counts from when it came, and one past the next image is a miss
soak     one process, back to back for a long time: does it slow down, does its memory grow
"""

import json
import math
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias, cast, get_args

from edgeft.core.errors import UsageError
from edgeft.core.events import EventSink, Progress, ignore
from edgeft.core.stage import Json
from edgeft.runtime.launch import launch
from edgeft.runtime.worker import Request, Timing
from edgeft.verify.latency import Quantile, quantile

Mode: TypeAlias = Literal["single", "paced", "soak"]
MODES: tuple[str, ...] = get_args(Mode)

_DIGITS = 4
_ENDLESS = 10**9
_SOAK_PARTS = 10
_COUNTED = 40
"""Inferences that an instruction count is taken over."""

Launch = Callable[[Request], Timing]


@dataclass(frozen=True, slots=True)
class Latency:
    """What a set of processes measured.

    Args:
        median_ms: of all samples.
        p50: with its order-statistic interval; null where there are too few samples for it. Likewise the others.
        jitter_ms: mean absolute difference between one sample and the next.
        samples: how many.
        samples_ms: all of them, by process, in the order they ran.
    """

    median_ms: float
    p50: Quantile | None
    p90: Quantile | None
    p99: Quantile | None
    jitter_ms: float
    samples: int
    samples_ms: list[list[float]]


@dataclass(frozen=True, slots=True)
class Bench:
    """One model on one device.

    Args:
        mode: see the module.
        threads: intra-op threads.
        spinning: whether idle threads spun.
        inputs: what was fed.
        model: the model alone, from its input to its output.
        end_to_end: from raw image files (read, decode, resize, infer, decide); null where none were at hand.
        processes: how many were run for `model`.
        load_ms: median over processes of opening the model.
        first_ms: median over processes of the first inference.
        throughput_per_s: images a second of one process; null where images were paced.
        cpu_share: processor time over wall time while images ran: 1 is one core.
        peak_rss_bytes: largest over processes.
        base_rss_bytes: largest before the model was opened.
        energy_j: of the processor's package for one image, other programs included; null where it cannot be read.
        instructions: user-mode instructions of one image; null where `perf` cannot count them.
        period_ms: paced: between images; else null.
        misses: paced: samples that took longer than the period; else null.
        slowdown: soak: median of the last tenth over that of the first; else null.
        grown_bytes: soak: what the resident size gained; else null.
    """

    mode: str
    threads: int
    spinning: bool
    inputs: str
    model: Latency
    end_to_end: Latency | None
    processes: int
    load_ms: float
    first_ms: float
    throughput_per_s: float | None
    cpu_share: float
    peak_rss_bytes: int
    base_rss_bytes: int
    energy_j: float | None
    instructions: float | None
    period_ms: float | None = None
    misses: int | None = None
    slowdown: float | None = None
    grown_bytes: int | None = None

    def to_json(self) -> dict[str, Json]:
        """Return JSON values."""
        return cast("dict[str, Json]", asdict(self))


def bench(  # noqa: PLR0913 - one option per fact that a latency claim must state
    request: Request,
    end_to_end: Request | None = None,
    *,
    mode: Mode = "single",
    processes: int = 5,
    period_ms: float | None = None,
    seconds: float = 60.0,
    emit: EventSink = ignore,
    run: Launch = launch,
    count: Callable[[Request], float | None] | None = None,
) -> Bench:
    """Measure a model.

    Args:
        request: the model, its threads, its inputs, samples a process and seconds a process.
        end_to_end: the same from raw image files; None leaves it out.
        mode: see the module.
        processes: fresh processes of `single` and `paced`.
        period_ms: of `paced`.
        seconds: of `soak`.
        emit: where progress goes.
        run: how one process is run; tests pass a simulation.
        count: how instructions of one image are counted; None: by `perf`, where it is there and can.

    Raises:
        UsageError: `paced` has no period above 0, or another mode has one, or `processes` is below 1.
        DeviceError: a process failed.
    """
    if mode != "paced" and period_ms is not None:
        raise UsageError(f"--period-ms {period_ms:g} is for --mode paced, not {mode}", hint="--mode paced")
    if mode == "paced" and not (period_ms is not None and 0 < period_ms < math.inf):
        given = "none was given" if period_ms is None else f"got {period_ms:g}"
        raise UsageError(
            f"--mode paced needs the time between two images in ms, above 0: {given}",
            hint="e.g. --mode paced --period-ms 33",
        )
    if processes < 1:
        raise UsageError(f"{processes} processes measure nothing")
    if mode == "soak":
        processes, request = 1, replace(request, samples=_ENDLESS, max_seconds=seconds)
    paced = replace(request, period_ms=period_ms or 0.0)
    timings = []
    for done in range(1, processes + 1):
        timings.append(run(paced))
        emit(Progress("bench", done, processes, f"{statistics.median(timings[-1].samples_ms):.2f} ms"))
    ends = (
        []
        if end_to_end is None
        else [run(replace(end_to_end, period_ms=period_ms or 0.0)) for _ in range(min(3, processes))]
    )
    samples = [sample for timing in timings for sample in timing.samples_ms]
    joules = [timing.energy_j for timing in timings]
    loop_s = sum(timing.loop_s for timing in timings)
    counted = (count or instructions)(request) if mode == "single" else None
    return Bench(
        mode=mode,
        threads=request.threads,
        spinning=request.spinning,
        inputs=Path(request.inputs).name if request.inputs else "seeded noise",
        model=_latency(timings),
        end_to_end=_latency(ends) if ends else None,
        processes=processes,
        load_ms=statistics.median(timing.load_ms for timing in timings),
        first_ms=statistics.median(timing.first_ms for timing in timings),
        throughput_per_s=None if mode == "paced" or not loop_s else len(samples) / loop_s,
        cpu_share=sum(timing.cpu_s for timing in timings) / loop_s if loop_s else 0.0,
        peak_rss_bytes=max(timing.peak_rss_bytes for timing in timings),
        base_rss_bytes=max(timing.base_rss_bytes for timing in timings),
        energy_j=None if None in joules else sum(filter(None, joules)) / len(samples),
        instructions=counted,
        period_ms=period_ms,
        misses=None if period_ms is None else sum(sample > period_ms for sample in samples),
        slowdown=_slowdown(samples) if mode == "soak" else None,
        grown_bytes=timings[0].grown_bytes if mode == "soak" else None,
    )


def instructions(request: Request) -> float | None:
    """Return the user-mode instructions of one inference, or None where they cannot be counted.

    Two processes are counted whole, one with more inferences than the other: what they differ by is inferences alone.
    """
    perf = shutil.which("perf")
    if perf is None:
        return None
    few, many = (_count(perf, replace(request, samples=n, max_seconds=600.0)) for n in (5, 5 + _COUNTED))
    return None if few is None or many is None else (many - few) / _COUNTED


def _count(perf: str, request: Request) -> float | None:
    """Return the user-mode instructions of a whole process."""
    with TemporaryDirectory() as folder:
        counts = Path(folder) / "counts.csv"
        command = [perf, "stat", "-x,", "-e", "instructions:u", "-o", str(counts), "--"]
        command += [sys.executable, "-m", "edgeft.runtime.worker", json.dumps(asdict(request))]
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - an argument list, no shell
        lines = counts.read_text().splitlines() if counts.is_file() else []
    found = [line.split(",")[0] for line in lines if "instructions" in line]
    return float(found[0]) if done.returncode == 0 and found and found[0].isdigit() else None


def _latency(timings: Sequence[Timing]) -> Latency:
    samples = [sample for timing in timings for sample in timing.samples_ms]
    steps = [
        abs(after - before)
        for timing in timings
        for before, after in zip(timing.samples_ms, timing.samples_ms[1:], strict=False)
    ]
    return Latency(
        median_ms=statistics.median(samples),
        p50=quantile(samples, 0.5),
        p90=quantile(samples, 0.9),
        p99=quantile(samples, 0.99),
        jitter_ms=statistics.fmean(steps) if steps else 0.0,
        samples=len(samples),
        samples_ms=[[round(sample, _DIGITS) for sample in timing.samples_ms] for timing in timings],
    )


def _slowdown(samples: Sequence[float]) -> float | None:
    """Return the median of the last tenth over the median of the first; None below two samples a tenth."""
    tenth = len(samples) // _SOAK_PARTS
    if tenth < 2:  # noqa: PLR2004 - one sample is no median
        return None
    return statistics.median(samples[-tenth:]) / statistics.median(samples[:tenth])

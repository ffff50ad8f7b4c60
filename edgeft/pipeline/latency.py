"""Times the lowered model against fp32 on real validation rows; never stored, since it says what is true now.

Where it is timed is told: on this machine, or on a device.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeft.core.events import EventSink, Message, StageFinished, StageStarted
from edgeft.core.place import Place
from edgeft.core.record import Gate, StageRecord
from edgeft.pipeline.device.place import HERE
from edgeft.pipeline.gates import deadline, max_ratio
from edgeft.recipe.model import LatencyBar

NAME = "latency"
REASON = "always measured anew"
_WARMUP, _MAX_SECONDS = 3, 3.0
_END_TO_END_SAMPLES = 20


def measure(  # noqa: PLR0913 - one argument per fact that a latency claim must state
    bar: LatencyBar,
    *,
    fp32: Path,
    lowered: Path,
    data: Path,
    images: Path | None,
    folder: Path,
    emit: EventSink,
    place: Place = HERE,
    exporter: str | None = None,
    budget_ms: float | None = None,
) -> tuple[dict[str, Any], tuple[Gate, ...], StageRecord]:
    """Compare `lowered` with `fp32` in ABBA rounds of fresh processes.

    Args:
        bar: what the recipe asks.
        fp32: the float graph.
        lowered: what the device runs.
        data: the data stage's folder.
        images: the root of the raw images; None of texts.
        folder: where the few rows that are timed are written.
        emit: where events go.
        place: the machine that times.
        exporter: "module:Class" whose runtime runs `lowered`; None: onnxruntime, then also from raw files or texts.
        budget_ms: what a proposed student's median may be; None where none was proposed.

    Returns:
        The comparison as JSON, the gates that the recipe asks for, and the stage's record.

    Raises:
        DataError: there are no validation rows.
        DeviceError: a timing process failed.
    """
    from edgeft.pipeline.timed import timed
    from edgeft.runtime.abba import compare_requests
    from edgeft.runtime.worker import Request

    began = time.perf_counter()
    emit(StageStarted(NAME, REASON))
    fed = timed(data, images, folder / "latency_inputs.npz")
    one, other = (
        Request(str(model), bar.threads, False, bar.samples_per_round, _WARMUP, _MAX_SECONDS)
        for model in (fp32, lowered)
    )
    fewer = min(bar.samples_per_round, _END_TO_END_SAMPLES)
    raw = [fed.end_to_end(replace(request, samples=fewer)) for request in (one, other)]
    alone = [fed.model_alone(one), replace(fed.model_alone(other), exporter=exporter)]
    with place.launching([request for request in (*alone, *raw) if request is not None]) as launch:
        compared = compare_requests(
            alone[0],
            alone[1],
            end_to_end=(raw[0], raw[1]) if exporter is None and raw[0] is not None and raw[1] is not None else None,
            max_ratio=max_ratio(bar),
            rounds=bar.rounds,
            emit=emit,
            run=launch,
        )
    found: dict[str, Any] = compared.to_json()
    gates = [compared.gate()] if bar.vs_fp32 is not None else []
    if bar.p99_ms is not None:
        gates.append(deadline(bar.p99_ms, found["new"]))
    if budget_ms is not None:
        gates.append(deadline(budget_ms, found["new"], "p50"))
    seconds = time.perf_counter() - began
    emit(StageFinished(NAME, reused=False, seconds=seconds))
    numbers = {name: found[name] for name in ("ratio", "interval", "rounds", "noise_floor")}
    return found, tuple(gates), StageRecord(NAME, "abba", "", False, REASON, seconds, {}, (), numbers)


def beside_teacher(  # noqa: PLR0913 - the same
    bar: LatencyBar,
    *,
    teacher: Path,
    lowered: Path,
    teachers_data: Path,
    data: Path,
    folder: Path,
    emit: EventSink,
    place: Place = HERE,
) -> dict[str, Any]:
    """Compare `lowered` with its teacher's float graph in ABBA rounds; no gate stands on it.

    Args:
        bar: rounds and threads.
        teacher: its float graph.
        lowered: what the device runs.
        teachers_data: the data stage's folder as the teacher reads it.
        data: as the student does.
        folder: where the few rows that are timed are written.
        emit: where events go.
        place: the machine that times.

    Raises:
        DataError: there are no validation rows.
        DeviceError: a timing process failed.
    """
    from edgeft.pipeline.timed import timed
    from edgeft.runtime.abba import compare_requests
    from edgeft.runtime.worker import Request

    requests = [
        timed(rows, None, folder / f"{name}_inputs.npz").model_alone(
            Request(str(model), bar.threads, False, bar.samples_per_round, _WARMUP, _MAX_SECONDS)
        )
        for name, model, rows in (("teacher", teacher, teachers_data), ("student", lowered, data))
    ]
    emit(Message("latency: the student beside its teacher"))
    with place.launching(requests) as launch:
        compared = compare_requests(*requests, rounds=bar.rounds[:1], emit=emit, run=launch)
    found: dict[str, Any] = compared.to_json()
    return found

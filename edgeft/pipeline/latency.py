"""Times the lowered model against fp32 on real validation images; never stored, since it says what is true now."""

import json
import time
from pathlib import Path
from typing import Any

from edgeft.core.atomic import write_atomic
from edgeft.core.events import EventSink, StageFinished, StageStarted
from edgeft.core.record import Gate, StageRecord
from edgeft.pipeline.gates import deadline, max_ratio
from edgeft.recipe.model import LatencyBar

NAME = "latency"
REASON = "always measured anew"
_IMAGES = 16
"""How many images the model alone is timed on, and how many files end to end."""


def measure(
    bar: LatencyBar, *, fp32: Path, lowered: Path, data: Path, images: Path, folder: Path, emit: EventSink
) -> tuple[dict[str, Any], tuple[Gate, ...], StageRecord]:
    """Compare `lowered` with `fp32` in ABBA rounds of fresh processes.

    Args:
        bar: what the recipe asks.
        fp32: the float graph.
        lowered: what the device runs.
        data: the data stage's folder.
        images: the root of the raw images.
        folder: where the few pixels that are timed are written.
        emit: where events go.

    Returns:
        The comparison as JSON, the gates that the recipe asks for, and the stage's record.

    Raises:
        DeviceError: a timing process failed.
    """
    from edgeft.runtime.abba import compare
    from edgeft.runtime.preprocess import InputContract

    began = time.perf_counter()
    emit(StageStarted(NAME, REASON))
    rows = _validation_rows(data)
    contract = json.loads((data / "dataset.json").read_bytes())["input"]
    compared = compare(
        fp32,
        lowered,
        threads=bar.threads,
        max_ratio=max_ratio(bar),
        rounds=bar.rounds,
        samples_per_round=bar.samples_per_round,
        inputs=_pixels(data, [row["index"] for row in rows], folder / "latency_inputs.npy"),
        images=[images / row["path"] for row in rows],
        contract=InputContract.from_json(contract),
        emit=emit,
    )
    found: dict[str, Any] = compared.to_json()
    gates = [compared.gate()] if bar.vs_fp32 is not None else []
    if bar.p99_ms is not None:
        gates.append(deadline(bar.p99_ms, found["new"]))
    seconds = time.perf_counter() - began
    emit(StageFinished(NAME, reused=False, seconds=seconds))
    numbers = {name: found[name] for name in ("ratio", "interval", "rounds", "noise_floor")}
    return found, tuple(gates), StageRecord(NAME, "abba", "", False, REASON, seconds, {}, (), numbers)


def _validation_rows(data: Path) -> list[dict[str, Any]]:
    """Return rows of the validation split, evenly spread over it."""
    with (data / "rows.jsonl").open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["split"] == "val"]
    step = max(1, len(rows) // _IMAGES)
    return rows[::step][:_IMAGES]


def _pixels(data: Path, indices: list[int], path: Path) -> Path:
    """Write the pixels of a few images, so that the timed processes need not hold all of them."""
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.load(data / "pixels.npy", mmap_mode="r")[indices])
    write_atomic(path, buffer.getvalue())
    return path

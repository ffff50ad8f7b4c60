"""This device as precision search measures it: one target's own profiler, and whole graphs raced in turns."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from edgeft.core.exporter import Exporter, Session
from edgeft.graph.save import save
from edgeft.quantize.rows import Rows
from edgeft.quantize.search import Device

_WARMUP, _ROUNDS, _INPUTS = 3, 40, 8


def this_device(exporter: Exporter, rows: Rows, threads: int) -> Device:
    """Return what measures graphs on this device.

    Args:
        exporter: of the target runtime.
        rows: inputs of the graphs; they are fed one by one, in turns.
        threads: intra-op threads.
    """
    inputs = [rows[index : index + 1] for index in range(min(_INPUTS, len(rows)))]

    def profile(model: onnx.ModelProto) -> Mapping[str, float]:
        with tempfile.TemporaryDirectory(prefix="edgeft-search-") as folder:
            file = Path(folder) / "model.onnx"
            save(model, file)
            return exporter.profile(file, threads, inputs[0])

    def race(models: Sequence[onnx.ModelProto]) -> list[float]:
        with tempfile.TemporaryDirectory(prefix="edgeft-search-") as folder:
            sessions = [_open(exporter, model, Path(folder) / str(index)) for index, model in enumerate(models)]
            return _race(sessions, inputs)

    def _open(exporter: Exporter, model: onnx.ModelProto, folder: Path) -> Session:
        folder.mkdir()
        save(model, folder / "graph.onnx")
        return exporter.session(exporter.lower(folder / "graph.onnx", folder / "lowered")[0], threads)

    return Device(profile, race)


def _race(sessions: Sequence[Session], inputs: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return each session's median milliseconds; all run in every round, forth and back."""
    samples: list[list[float]] = [[] for _ in sessions]
    order = [*range(len(sessions)), *reversed(range(len(sessions)))]
    for round_ in range(_WARMUP + _ROUNDS):
        feeds = inputs[round_ % len(inputs)]
        for index in order:
            started = time.perf_counter_ns()
            sessions[index](feeds)
            if round_ >= _WARMUP:
                samples[index].append((time.perf_counter_ns() - started) / 1e6)
    return [median(of) for of in samples]

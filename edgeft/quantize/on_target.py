"""Graphs on this device, in their target's own runtime: what they answer, where their time goes, which is faster."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx

from edgeft.core.exporter import Exporter, Session
from edgeft.graph.save import save
from edgeft.graph.taps import with_outputs
from edgeft.quantize.affine import Floats
from edgeft.quantize.compress import Outputs
from edgeft.quantize.rows import Rows
from edgeft.quantize.search import Device

ONNXRUNTIME = "onnxruntime"
"""As a fingerprint names it."""
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
            sessions = [
                _open(exporter, model, Path(folder) / str(index), threads) for index, model in enumerate(models)
            ]
            return _race(sessions, inputs)

    return Device(profile, race)


def target_outputs(exporter: Exporter, threads: int) -> Outputs:
    """Return what computes a tensor of a graph in the runtime of `exporter`, which must be able to run here."""

    def outputs(model: onnx.ModelProto, tensor: str, rows: Rows, batch: int) -> Floats:
        tapped = with_outputs(model, [tensor])
        index = [value.name for value in tapped.graph.output].index(tensor)
        with tempfile.TemporaryDirectory(prefix="edgeft-judge-") as folder:
            run = _open(exporter, tapped, Path(folder) / "model", threads)
            parts = [np.asarray(run(rows[at : at + batch])[index]) for at in range(0, len(rows), batch)]
        return np.concatenate(parts).astype(np.float32, copy=False)

    return outputs


def _open(exporter: Exporter, model: onnx.ModelProto, folder: Path, threads: int) -> Session:
    folder.mkdir()
    save(model, folder / "graph.onnx")
    return exporter.session(exporter.lower(folder / "graph.onnx", folder / "lowered")[0], threads)


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

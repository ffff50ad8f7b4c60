"""The decide stage: how the scores of what ships become decisions. Reads validation alone; never test.

Thresholds are fitted through the lowered file, in the code that the device runs: one that was fitted on another model
is stale, so each names the sha256 of the file that it belongs to. The float graph gets thresholds of its own by the
same rule, so that what compression costs is not mistaken for a shifted operating point.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgeft import catalog
from edgeft.core.atomic import write_atomic
from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DataError, IntegrityError, UsageError
from edgeft.core.events import EventSink, Progress
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.pipeline.stage_configs import ArgmaxConfig, ThresholdConfig
from edgeft.verify.decision import HIGHEST, Decision, fit

__all__ = ["ArgmaxConfig", "ThresholdConfig", "argmax", "read_decisions", "threshold"]

FP32 = "fp32"
DECISION, VALIDATION, SHIPPED = "decision.json", "validation.npz", "shipped"
Fit: TypeAlias = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32], int], Decision]


def argmax(ctx: Context, inputs: Inputs, config: ArgmaxConfig) -> StageResult:
    """Decide by the highest score.

    Raises:
        DataError: an input folder is damaged.
    """
    del config
    data = catalog.resolve("edgeft.data.dataset:Dataset").open(inputs["data"])
    return _decide(ctx, inputs, data, lambda _labels, _scores, _ok: HIGHEST)


def threshold(ctx: Context, inputs: Inputs, config: ThresholdConfig) -> StageResult:
    """Fit thresholds that hold `config`'s limits.

    Raises:
        UsageError: the data names no class of good parts.
        DataError: validation has too few parts for a limit.
    """
    data = catalog.resolve("edgeft.data.dataset:Dataset").open(inputs["data"])
    if data.ok_class is None:
        raise UsageError("decide.method: threshold needs the class of good parts", hint="name it: data.ok_class")

    def fitted(labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], ok: int) -> Decision:
        return fit(labels, scores, ok, max_escape=config.max_escape, max_overkill=config.max_overkill)

    return _decide(ctx, inputs, data, fitted)


def read_decisions(folder: Path, model: Path, classes: tuple[str, ...]) -> tuple[Decision, Decision]:
    """Return how the lowered file `model` decides, and how the float graph would.

    Raises:
        IntegrityError: the decisions are of another file.
    """
    found = json.loads((folder / DECISION).read_bytes())
    if found["model"] != sha256_bytes(model.read_bytes()):
        raise IntegrityError(f"{folder / DECISION}: fitted through another file than {model}: it is stale")
    shipped, base = (Decision.from_json(found[name], classes) for name in (SHIPPED, FP32))
    return shipped, base


def _decide(ctx: Context, inputs: Inputs, data: Any, rule: Fit) -> StageResult:  # noqa: ANN401 - a Dataset
    lowered = json.loads((inputs["lower"] / "lowered.json").read_bytes())
    model = inputs["lower"] / lowered["model"]
    shipped = base = HIGHEST
    if data.ok_class is not None:
        ok, rows = data.classes.index(data.ok_class), data.indices("val")
        if not len(rows):
            raise DataError("the data has no validation rows to decide on", hint="give data.split a val share")
        labels = data.labels[rows]
        part = data.part(rows)
        scores = _scores(model, part, ctx.threads, ctx.emit, SHIPPED)
        float_scores = scores
        if lowered["chosen"] != FP32:
            file = inputs["compress"] / "candidates" / FP32 / "model.onnx"
            float_scores = _scores(file, part, ctx.threads, ctx.emit, FP32)
        shipped, base = (rule(labels, found, ok) for found in (scores, float_scores))
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"labels": labels, SHIPPED: scores, FP32: float_scores}
        np.savez(buffer, **arrays)
        write_atomic(ctx.folder / VALIDATION, buffer.getvalue())
    classes = tuple(data.classes)
    found: dict[str, Json] = {
        "schema": 1,
        "model": sha256_bytes(model.read_bytes()),
        SHIPPED: shipped.to_json(classes),
        FP32: base.to_json(classes),
    }
    write_atomic(ctx.folder / DECISION, json.dumps(found, indent=1, allow_nan=False) + "\n")
    measured = {} if shipped.ok is None else {"stop_at": shipped.stop_at, "sure_at": shipped.sure_at}
    return StageResult(ctx.folder, dict(measured))


def _scores(model: Path, part: Any, threads: int, emit: EventSink, name: str) -> npt.NDArray[np.float32]:  # noqa: ANN401 - a Part
    from edgeft.runtime.session import Model

    device = Model.open(model, threads=threads)
    found = []
    for row in range(len(part)):
        found.append(device.scores(part[row : row + 1]))
        emit(Progress(f"decide {name}", row + 1, len(part)))
    return np.concatenate(found)

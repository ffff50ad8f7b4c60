"""What a candidate is worth on data: how far it is from float, and where there are labels, what it loses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeft.core.events import EventSink, ignore
from edgeft.core.stage import Json
from edgeft.quantize.affine import Floats, QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.plan import Skip
from edgeft.quantize.rows import Rows, tensors_of
from edgeft.quantize.temperature import softmax
from edgeft.verify.accuracy import metric_value
from edgeft.verify.intervals import metric_interval
from edgeft.verify.numerics import error_summary, sqnr_db
from edgeft.verify.paired import paired_difference

LOGITS = "logits"
_MATRIX_RANK = 2


@dataclass(frozen=True, slots=True)
class Bar:
    """What a candidate is held against: `metric` may drop by `max_drop_pp` percentage points."""

    metric: str
    max_drop_pp: float
    seed: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A graph with the temperature fitted through it (None where it has none), and what it is worth."""

    model: onnx.ModelProto
    temperature: float | None
    validation: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to ship the model.

    Args:
        name: its precision: "fp32", "fp16", "int8" or "int4".
        judged: its graph and what it is worth on the data that candidates are compared on.
        method: how it was made.
        unsafe_pairs: of its weights; None where none multiplies integers, so that none was counted.
        skips: operators left in float.
        ladder: what was tried on the way to it, in order; empty for fp32.
    """

    name: str
    judged: Judged
    method: str
    unsafe_pairs: int | None = None
    skips: tuple[Skip, ...] = ()
    ladder: tuple[Mapping[str, Json], ...] = ()


def logits_of(
    model: onnx.ModelProto,
    inputs: Rows,
    execution: Execution,
    emit: EventSink = ignore,
    task: str = "validate",
    *,
    tensor: str = LOGITS,
) -> Floats:
    """Return `tensor` of `model` for `inputs`, float32 [N, ...]; for `logits` that is [N, K].

    Args:
        model: a graph.
        inputs: N rows in the types that the graph takes; read a batch at a time.
        execution: threads and batch.
        emit: where progress goes.
        task: what progress calls it.
        tensor: an inner tensor or an output of the graph.

    Raises:
        QuantizationError: the graph has no tensor of that name.
    """
    if not any(tensor in node.output for node in model.graph.node):
        raise QuantizationError(f"the graph has no tensor {tensor!r}", hint="export it with edgeft")
    parts = [found[0] for found in tensors_of(model, [tensor], inputs, execution, emit, task)]
    return np.concatenate(parts).astype(np.float32, copy=False)


def output_error(values: Floats, float_values: Floats) -> dict[str, Json]:
    """Return how far a candidate's outputs are from the float graph's: n, agreement, mean error, SQNR.

    Agreement is the share of rows with the same largest entry; null where the outputs are no [N, K] with K > 1. The
    SQNR is null where the outputs are equal.

    Args:
        values: float32 [N, ...] of the candidate.
        float_values: float32 [N, ...] of the float graph on the same data.

    Raises:
        DataError: a value is NaN or infinite.
    """
    decides = values.ndim == _MATRIX_RANK and values.shape[1] > 1
    sqnr = sqnr_db(float_values, values)
    return {
        "n": len(values),
        "agreement": float((values.argmax(axis=1) == float_values.argmax(axis=1)).mean()) if decides else None,
        "mean_abs_logit_error": error_summary(float_values, values).mean_abs,
        "sqnr_db": sqnr if math.isfinite(sqnr) else None,
    }


def judge(
    logits: Floats, float_logits: Floats, labels: NDArray[np.int64], bar: Bar, temperatures: tuple[float, float]
) -> dict[str, Json]:
    """Return what a classifier is worth on labelled data: its metric, its drop from float, and `output_error`.

    Args:
        logits: float32 [N, K] of the candidate.
        float_logits: float32 [N, K] of the float graph on the same data.
        labels: int64 [N].
        bar: metric and margin.
        temperatures: of the candidate and of the float graph.
    """
    classes = logits.shape[1]
    scores, float_scores = (
        softmax(values / np.float32(temperature))
        for values, temperature in zip((logits, float_logits), temperatures, strict=True)
    )
    drop = paired_difference(bar.metric, labels, float_scores, scores, classes, bar.seed)
    low, high = metric_interval(bar.metric, labels, scores, classes, bar.seed)
    return {
        **output_error(logits, float_logits),
        "metric": bar.metric,
        "value": metric_value(bar.metric, labels, scores, classes),
        "interval": [low, high],
        "drop_pp": drop.value_pp,
        "drop_interval_pp": [drop.low_pp, drop.high_pp],
        "holds_margin": drop.high_pp <= bar.max_drop_pp,
    }


def float_block(block: dict[str, Json]) -> dict[str, Json]:
    """Return the float candidate's block: it differs from itself by nothing, whatever the sample."""
    if "drop_pp" not in block:
        return block
    return block | {"drop_pp": 0.0, "drop_interval_pp": [0.0, 0.0], "holds_margin": True}

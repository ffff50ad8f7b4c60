"""What a candidate is worth on validation: its metric, its paired drop from float, how often the two agree."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeft.core.events import EventSink, Progress, ignore
from edgeft.core.stage import Json
from edgeft.graph.execute import open_session
from edgeft.graph.taps import with_outputs
from edgeft.quantize.affine import Floats, QuantizationError
from edgeft.quantize.calibration import Execution, Pixels
from edgeft.quantize.plan import Skip
from edgeft.quantize.temperature import fit_temperature, softmax
from edgeft.verify.accuracy import metric_interval, metric_value
from edgeft.verify.paired import paired_difference

LOGITS = "logits"


@dataclass(frozen=True, slots=True)
class Bar:
    """What a candidate is held against: `metric` may drop by `max_drop_pp` percentage points."""

    metric: str
    max_drop_pp: float
    seed: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to ship the model.

    Args:
        name: "fp32" or "int8".
        model: its graph, with the fitted temperature.
        temperature: fitted on validation through this graph.
        validation: numbers on the validation split.
        unsafe_pairs: of its weights.
        skips: operators left in float.
        method: how it was made.
    """

    name: str
    model: onnx.ModelProto
    temperature: float
    validation: dict[str, Json]
    unsafe_pairs: int
    skips: tuple[Skip, ...]
    method: str


def logits_of(
    model: onnx.ModelProto, pixels: Pixels, execution: Execution, emit: EventSink = ignore, task: str = "validate"
) -> Floats:
    """Return the tensor `logits` of `model` for `pixels` uint8 [N, H, W, 3]: float32 [N, K].

    Raises:
        QuantizationError: the graph has no tensor of that name, or the pixels do not fit.
    """
    if not any(LOGITS in node.output for node in model.graph.node):
        raise QuantizationError(f"the graph has no tensor {LOGITS!r}", hint="export it with edgeft")
    name = model.graph.input[0].name
    session = open_session(with_outputs(model, [LOGITS]), execution.threads)
    parts = []
    for start in range(0, len(pixels), execution.batch):
        chunk = np.ascontiguousarray(pixels[start : start + execution.batch])
        parts.append(session.run([LOGITS], {name: chunk})[0])
        emit(Progress(task, min(start + execution.batch, len(pixels)), len(pixels)))
    return np.concatenate(parts).astype(np.float32, copy=False)


def judge(
    logits: Floats, float_logits: Floats, float_temperature: float, labels: NDArray[np.int64], bar: Bar
) -> tuple[float, dict[str, Json]]:
    """Return the temperature of a candidate and its validation block.

    Args:
        logits: float32 [N, K] of the candidate.
        float_logits: float32 [N, K] of the float graph on the same images.
        float_temperature: fitted through the float graph.
        labels: int64 [N].
        bar: metric and margin.
    """
    temperature = fit_temperature(logits, labels)
    classes = logits.shape[1]
    scores = softmax(logits / np.float32(temperature))
    float_scores = softmax(float_logits / np.float32(float_temperature))
    drop = paired_difference(bar.metric, labels, float_scores, scores, classes, bar.seed)
    low, high = metric_interval(bar.metric, labels, scores, classes, bar.seed)
    block: dict[str, Json] = {
        "n": len(labels),
        "metric": bar.metric,
        "value": metric_value(bar.metric, labels, scores, classes),
        "interval": [low, high],
        "drop_pp": drop.value_pp,
        "drop_interval_pp": [drop.low_pp, drop.high_pp],
        "agreement": float((logits.argmax(axis=1) == float_logits.argmax(axis=1)).mean()),
        "mean_abs_logit_error": float(np.abs(logits.astype(np.float64) - float_logits).mean()),
        "holds_margin": drop.high_pp <= bar.max_drop_pp,
    }
    return temperature, block


def float_block(block: dict[str, Json]) -> dict[str, Json]:
    """Return the float candidate's block: it differs from itself by nothing, whatever the sample."""
    return block | {"drop_pp": 0.0, "drop_interval_pp": [0.0, 0.0], "holds_margin": True}

"""From a float graph to its candidates: fp32 always, a smaller one beside it, both judged on the same data.

The compress stage and `edgeft quantize` differ in where graph and data come from; from here on they are one.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeft.core.atomic import write_atomic
from edgeft.core.events import EventSink, ignore
from edgeft.core.stage import Json
from edgeft.graph.save import save
from edgeft.quantize.affine import Floats, QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import LOGITS, Bar, Candidate, Judged, float_block, judge, logits_of, output_error
from edgeft.quantize.dynamic import DynamicMethod
from edgeft.quantize.ladder import best, climb
from edgeft.quantize.placement import Placement
from edgeft.quantize.rows import Rows
from edgeft.quantize.rungs import Ladder
from edgeft.quantize.temperature import fit_temperature, has_temperature, with_temperature

Outputs: TypeAlias = Callable[[onnx.ModelProto, str, Rows, int], Floats]
"""A graph, one of its tensors, N rows, a batch size -> that tensor for these rows, float32 [N, ...]."""

_SCHEMA = 1
_MATRIX_RANK = 2


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What candidates are compared on.

    Args:
        inputs: N rows in the types that the graph takes.
        labels: int64 [N], or None: then only the distance from float is told.
        bar: metric and margin.
        tensor: the tensor that is compared.
        outputs: what computes it for a candidate: the target's runtime; None is onnxruntime.
        calibrate: whether a temperature is fitted through each candidate: only where the graph is of edgeft's export,
            for an initializer called `temperature` in another file is one of its weights.
    """

    inputs: Rows
    labels: NDArray[np.int64] | None
    bar: Bar
    tensor: str = LOGITS
    outputs: Outputs | None = None
    calibrate: bool = False


@dataclass(frozen=True, slots=True)
class Compressed:
    """The candidates, float first; what a reader must know; seconds by step."""

    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]
    timings: dict[str, Json]


def compress(
    graph: onnx.ModelProto,
    evaluation: Evaluation,
    ladder: Ladder | None,
    *,
    execution: Execution,
    emit: EventSink = ignore,
) -> Compressed:
    """Return the candidates of `graph`.

    Where `evaluation.calibrate` and the graph divides by a temperature, one is fitted through each candidate.

    Args:
        graph: a float graph.
        evaluation: what candidates are compared on.
        ladder: how the other candidate is made; None leaves it out.
        execution: threads and batch.
        emit: where progress goes.

    Raises:
        QuantizationError: the graph cannot be quantized, or its activations or outputs are not finite.
    """
    if ladder is not None and ladder.placement.as_written:
        execution = dataclasses.replace(execution, optimise=False)
    timings: dict[str, Json] = {}
    started = time.perf_counter()
    expected = logits_of(graph, evaluation.inputs, execution, emit, "validate fp32", tensor=evaluation.tensor)
    if not np.isfinite(expected).all():
        raise QuantizationError(
            f"the float model's {evaluation.tensor!r} holds NaN or Inf on the data that candidates are compared on",
            hint="check the model and the data",
        )
    own = _judged(graph, expected, expected, None, evaluation)
    base = Candidate("fp32", dataclasses.replace(own, validation=float_block(own.validation)), "float")
    timings["validate_fp32_seconds"] = time.perf_counter() - started
    if ladder is None:
        return Compressed((base,), (), timings)

    # a scale that is found as the model runs covers the whole batch: what is judged is what a device runs, one by one
    one_by_one = dataclasses.replace(execution, batch=1) if isinstance(ladder.method, DynamicMethod) else execution

    def judged(model: onnx.ModelProto) -> Judged:
        task, inputs, tensor = f"validate {ladder.method.precision}", evaluation.inputs, evaluation.tensor
        if evaluation.outputs is not None:
            found = evaluation.outputs(model, tensor, inputs, one_by_one.batch)
        else:
            found = logits_of(model, inputs, one_by_one, emit, task, tensor=tensor)
        return _judged(model, found, expected, own.temperature, evaluation)

    placement = _with_float_output(ladder.placement, evaluation.tensor, expected)
    fitted = dataclasses.replace(ladder, placement=placement, output=evaluation.tensor)
    notes: tuple[str, ...] = ()
    if ladder.climb == "until it holds" and not own.validation.get("holds_margin", True):
        notes = (_cannot_certify(own.validation, evaluation.bar),)
        fitted = dataclasses.replace(fitted, climb="never")
    rungs = climb(graph, fitted, judged, execution=execution, emit=emit)
    rung = best(rungs)
    tried = tuple(each.to_json() for each in rungs)
    made = Candidate(ladder.method.precision, rung.judged, rung.label, rung.unsafe_pairs, rung.skips, tried)
    return Compressed(
        (base, made), (*rungs[-1].notes, *notes), timings | {f"{each.name}_seconds": each.seconds for each in rungs}
    )


def write_candidates(folder: Path, candidates: tuple[Candidate, ...]) -> None:
    """Write `candidates/<name>/model.onnx` and `candidates.json` below `folder`.

    Raises:
        EdgeftError: a graph is larger than 2 GB.
        OSError: the disk is full or the folder cannot be written.
    """
    entries = [_write(folder, candidate) for candidate in candidates]
    text = json.dumps({"schema": _SCHEMA, "candidates": entries}, indent=2, allow_nan=False)
    write_atomic(folder / "candidates.json", text + "\n")


def _judged(
    model: onnx.ModelProto,
    values: Floats,
    expected: Floats,
    float_temperature: float | None,
    evaluation: Evaluation,
) -> Judged:
    """Return `model`, with the temperature fitted through it where that is asked for, and what it is worth.

    Args:
        model: a candidate's graph.
        values: float32 [N, ...], its outputs.
        expected: float32 [N, ...], the float graph's.
        float_temperature: the float graph's; None: the same as the candidate's.
        evaluation: labels and bar.
    """
    if evaluation.labels is None:
        return Judged(model, None, output_error(values, expected))
    temperature = None
    if evaluation.calibrate and has_temperature(model):
        temperature = fit_temperature(values, evaluation.labels)
        model = with_temperature(model, temperature)
    own = temperature or 1.0
    both = (own, float_temperature or own)
    return Judged(model, temperature, judge(values, expected, evaluation.labels, evaluation.bar, both))


def _cannot_certify(identical: dict[str, Json], bar: Bar) -> str:
    """Return why no rung can hold the margin: `identical`, the float graph judged against itself, does not."""
    return (
        f"{identical['n']} inputs cannot certify {bar.max_drop_pp:g} pp {bar.metric} even for equal decisions, so "
        "nothing was tried after the first rung"
    )


def _with_float_output(placement: Placement, tensor: str, values: Floats) -> Placement:
    """Return `placement` with a classifier's compared tensor, [N, K], among those that never get a Q."""
    if values.ndim != _MATRIX_RANK or tensor in placement.float_outputs:
        return placement
    return dataclasses.replace(placement, float_outputs=(*placement.float_outputs, tensor))


def _write(folder: Path, candidate: Candidate) -> dict[str, Json]:
    """Write the candidate's graph and return its entry in candidates.json."""
    file = f"candidates/{candidate.name}/model.onnx"
    judged = candidate.judged
    onnx.checker.check_model(judged.model)
    size = save(judged.model, folder / file)
    return {
        "name": candidate.name,
        "precision": candidate.name,
        "file": file,
        "size_bytes": size,
        "temperature": judged.temperature,
        "validation": judged.validation,
        "unsafe_pairs": candidate.unsafe_pairs,
        "skipped": [{"layer": skip.layer, "reason": skip.reason} for skip in candidate.skips],
        "method": candidate.method,
        "ladder": [dict(rung) for rung in candidate.ladder],
    }

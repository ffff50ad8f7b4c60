"""The candidates of a user's own ONNX file: what the compress stage makes of a build's graph, made without a recipe.

Reads a float model and arrays or images; writes `candidates/<name>/model.onnx`, `candidates.json`, and in the
workspace a few inputs to time the candidates with. Which candidate ships is chosen later.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeft import catalog
from edgeft.core.digest import sha256_file
from edgeft.core.errors import DataError, UsageError
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.data.samples import Normalisation, Samples, read_samples
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import Bar
from edgeft.quantize.compress import Evaluation, compress, write_candidates
from edgeft.quantize.foreign import Foreign, Prepared, prepare, read_model
from edgeft.quantize.ladder import climb_rule, method_for
from edgeft.quantize.on_target import target_outputs, this_device
from edgeft.quantize.one_input import OneInput
from edgeft.quantize.rungs import Ladder

METRIC = "accuracy"
TIMED = "timed_inputs.npz"
_TIMED_INPUTS = 16
_CHANNELS = (1, 3)


@dataclass(frozen=True, slots=True)
class StandaloneConfig:
    """How a model is quantized without a recipe.

    Args:
        target: the exporter whose placement rules hold.
        precision: of the candidate beside fp32.
        method: see `CompressConfig.method`.
        max_drop_pp: how much accuracy it may lose, in percentage points.
        images: calibration inputs at most.
        bias_images: of these, how many round weights and correct biases.
        mean: of images for a float input, in pixel units, one number or three; None without images.
        std: likewise.
        sizes: of the input after the batch axis, where the model leaves them open.
        search: whether segments that are faster in float stay in float.
        float_share: of the multiplications, around the tensors that suffer most from 8 bits, 0..1; None: the default of
            `CompressConfig`.
        swap_activations: whether HardSwish and SiLU become Relu first, healed by training.
        threads: of the measurements of `search`.
    """

    target: str
    precision: str
    method: str
    max_drop_pp: float
    images: int
    bias_images: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    sizes: tuple[int, ...] | None
    search: bool = False
    float_share: float | None = None
    swap_activations: bool = False
    threads: int = 1


def run(ctx: Context, inputs: Inputs, config: StandaloneConfig) -> StageResult:
    """Make the candidates of `inputs["model"]`.

    Calibrates on `inputs["calibration"]`; compares on `inputs["evaluation"]`, or where there is none on the calibration
    data, whose labels then judge nothing.

    Raises:
        DataError: the model or the data cannot be used as they are.
        UsageError: an option is missing or contradicts the data.
    """
    normalisation = _normalisation(config)
    foreign = read_model(inputs["model"], config.sizes)
    calibration = read_samples(
        inputs["calibration"],
        foreign.inputs,
        normalisation=normalisation,
        limit=config.images,
        seed=ctx.seed_for("calibration images"),
        target=ctx.workspace / "calibration.npy",
        threads=ctx.threads,
        emit=ctx.emit,
    )
    evaluation = calibration
    if "evaluation" in inputs:
        evaluation = read_samples(
            inputs["evaluation"],
            foreign.inputs,
            normalisation=normalisation,
            target=ctx.workspace / "evaluation.npy",
            threads=ctx.threads,
            emit=ctx.emit,
        )
    prepared = prepare(foreign, calibration)
    _check_alike(calibration, evaluation, prepared)
    labels = evaluation.labels if evaluation is not calibration else None
    exporter = catalog.exporter(config.target)
    outputs = None if exporter.cross else target_outputs(exporter, ctx.threads)
    method = method_for(
        prepared.model, exporter.placement, config.precision, config.method, config.bias_images, config.float_share
    )
    made = compress(
        prepared.model,
        Evaluation(
            evaluation,
            labels,
            Bar(METRIC, config.max_drop_pp, ctx.seed_for("paired bootstrap")),
            prepared.tensor,
            outputs,
        ),
        Ladder(
            exporter.placement,
            method,
            calibration,
            OneInput(calibration) if len(foreign.inputs) == 1 else None,
            climb_rule(config.method),
            ctx.seed_for("quantization-aware training"),
            memo=ctx.workspace / "memo",
            device=this_device(exporter, calibration, config.threads) if config.search else None,
            swap=config.swap_activations,
        ),
        execution=Execution(ctx.threads, 1) if foreign.fixed_batch else Execution(ctx.threads),
        emit=ctx.emit,
    )
    write_candidates(ctx.folder, made.candidates)
    timed: dict[str, Any] = evaluation[:_TIMED_INPUTS]
    np.savez(ctx.workspace / TIMED, **timed)
    measurements: dict[str, Json] = {
        "source": _source(foreign, prepared),
        "calibration": _facts(calibration),
        "evaluation": {**_facts(evaluation), "held_out": evaluation is not calibration},
    }
    few = f"calibrated on all {len(calibration)} inputs of {calibration.source}; {config.images} were asked for"
    notes = [few] if len(calibration) < config.images else []
    accuracy = made.candidates[0].judged.validation.get("value")
    if isinstance(accuracy, float) and accuracy * (prepared.outputs or 1) <= 1:
        notes.append(
            f"the float model is right on {accuracy:.1%} of {evaluation.source}, no better than chance: are the "
            "classes in the model's order, and the inputs preprocessed as it expects?"
        )
    return StageResult(ctx.folder, measurements, (*prepared.notes, *notes, *made.notes), made.timings)


def _sizes(samples: Samples) -> str:
    return ", ".join(str(list(sizes)) for sizes in samples.sizes.values())


def _normalisation(config: StandaloneConfig) -> Normalisation | None:
    if config.mean is None and config.std is None:
        return None
    if config.mean is None or config.std is None:
        raise UsageError("--mean and --std go together: the model takes (pixel - mean) / std", hint="give both")
    for option, values in (("--mean", config.mean), ("--std", config.std)):
        if len(values) not in _CHANNELS:
            raise UsageError(f"{option} has {len(values)} numbers, expected one or three (red, green, blue)")
    if min(config.std) <= 0:
        raise UsageError(f"--std {min(config.std):g}: must be above 0")
    return Normalisation(config.mean, config.std)


def _check_alike(calibration: Samples, evaluation: Samples, prepared: Prepared) -> None:
    if evaluation.sizes != calibration.sizes and len(evaluation.specs) == 1:
        raise DataError(
            f"{evaluation.source} holds inputs of {_sizes(evaluation)}, {calibration.source} of "
            f"{_sizes(calibration)}: both must be alike"
        )
    if evaluation is calibration or evaluation.labels is None:
        return  # labels of calibration data judge nothing
    if prepared.outputs is None or prepared.outputs == 1:
        raise DataError(
            f"{evaluation.source}: holds labels, but the model's {prepared.tensor!r} is no [N, classes] to decide by",
            hint="pass data without labels: then only the distance from float is told",
        )
    evaluation.require_classes(prepared.outputs)


def _source(foreign: Foreign, prepared: Prepared) -> dict[str, Json]:
    before, after = prepared.operators
    return {
        "path": str(foreign.path),
        "sha256": sha256_file(foreign.path),
        "size_bytes": foreign.path.stat().st_size,
        "input": "; ".join(map(str, foreign.inputs)),
        "compared_on": prepared.tensor,
        "outputs": prepared.outputs,
        "opset": foreign.opset,
        "opset_used": prepared.opset,
        "operators": before,
        "operators_simplified": after,
        "max_abs_error": prepared.max_abs_error,
        "compared_inputs": prepared.checked,
    }


def _facts(samples: Samples) -> dict[str, Json]:
    return {"source": str(samples.source), "n": len(samples), "labelled": samples.labels is not None}

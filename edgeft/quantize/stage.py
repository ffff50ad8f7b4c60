"""The compress stage: candidates of the deployment graph, each with what it is worth on validation.

Reads the train split (calibration) and the val split (temperature, comparison); never test. Writes
`candidates/<name>/model.onnx` and `candidates.json`. Which candidate ships is chosen later, on the device.
"""

import json
import time
from pathlib import Path

import numpy as np
import onnx

from edgeft import catalog
from edgeft.core.atomic import write_atomic
from edgeft.core.errors import DataError
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.data.dataset import Dataset
from edgeft.graph.load import load
from edgeft.graph.save import save
from edgeft.quantize.calibration import Execution, Pixels
from edgeft.quantize.candidates import Bar, Candidate, float_block, judge, logits_of
from edgeft.quantize.config import CompressConfig
from edgeft.quantize.static import quantize_static, static_method
from edgeft.quantize.temperature import with_temperature

_SCHEMA = 1


def run(ctx: Context, inputs: Inputs, config: CompressConfig) -> StageResult:
    """Make the candidates of `inputs["graph"]` on `inputs["data"]`.

    Raises:
        DataError: a split is empty, or an input folder is damaged.
        QuantizationError: the graph cannot be quantized, or its activations are not finite.
    """
    data = Dataset.open(inputs["data"])
    graph = load(inputs["graph"] / "model.onnx")
    execution = Execution(ctx.threads)
    bar = Bar(config.metric, config.max_drop_pp, ctx.seed_for("paired bootstrap"))
    rows = data.indices("val")
    if len(rows) == 0:
        raise DataError("the data has no validation rows to compare candidates on", hint="give data.split a val share")
    pixels, labels = np.ascontiguousarray(data.pixels[rows]), data.labels[rows]
    timings: dict[str, Json] = {}
    started = time.perf_counter()
    float_logits = logits_of(graph, pixels, execution, ctx.emit, "validate fp32")
    temperature, block = judge(float_logits, float_logits, 1.0, labels, bar)
    float_candidate = Candidate(
        "fp32", with_temperature(graph, temperature), temperature, float_block(block), 0, (), "float"
    )
    timings["validate_fp32_seconds"] = time.perf_counter() - started
    candidates, notes = [float_candidate], []
    if config.precision == "int8":
        calibration = calibration_pixels(data, config.calib_images, ctx.seed_for("calibration images"))
        if len(calibration) < config.calib_images:
            notes.append(f"calibrated on all {len(calibration)} training images; {config.calib_images} were asked for")
        placement = catalog.exporter(config.target).placement
        method = static_method(config.method, config.bias_images)
        started = time.perf_counter()
        result = quantize_static(
            graph, placement, calibration, method, execution=execution, emit=ctx.emit, memo=ctx.memo
        )
        timings["quantize_int8_seconds"] = time.perf_counter() - started
        started = time.perf_counter()
        logits = logits_of(result.model, pixels, execution, ctx.emit, "validate int8")
        fitted, block = judge(logits, float_logits, temperature, labels, bar)
        timings["validate_int8_seconds"] = time.perf_counter() - started
        model = with_temperature(result.model, fitted)
        candidates.append(Candidate("int8", model, fitted, block, result.unsafe_pairs, result.skips, method.label))
        notes += [f"{layer} has no bias, so its mean output is not corrected" for layer in result.uncorrected]
    entries = [_write(ctx.folder, candidate) for candidate in candidates]
    write_atomic(
        ctx.folder / "candidates.json", json.dumps({"schema": _SCHEMA, "candidates": entries}, indent=2) + "\n"
    )
    return StageResult(ctx.folder, _measurements(candidates), tuple(notes), timings)


def calibration_pixels(data: Dataset, images: int, seed: int) -> Pixels:
    """Return uint8 [n, H, W, 3]: up to `images` training rows, drawn without replacement, in drawn order.

    Raises:
        DataError: the train split is empty.
    """
    rows = data.indices("train")
    if len(rows) == 0:
        raise DataError("the data has no training rows to calibrate on", hint="give data.split a train share")
    drawn = np.random.default_rng(seed).permutation(rows)[:images]
    order = np.argsort(drawn)
    pixels = np.empty((len(drawn), *data.pixels.shape[1:]), np.uint8)
    pixels[order] = data.pixels[drawn[order]]  # read in file order: the pixels are mapped from disk
    return pixels


def _write(folder: Path, candidate: Candidate) -> dict[str, Json]:
    """Write the candidate's graph and return its entry in candidates.json."""
    file = f"candidates/{candidate.name}/model.onnx"
    onnx.checker.check_model(candidate.model)
    size = save(candidate.model, folder / file)
    return {
        "name": candidate.name,
        "precision": candidate.name,
        "file": file,
        "size_bytes": size,
        "temperature": candidate.temperature,
        "validation": candidate.validation,
        "unsafe_pairs": candidate.unsafe_pairs,
        "skipped": [{"layer": skip.layer, "reason": skip.reason} for skip in candidate.skips],
        "method": candidate.method,
    }


def _measurements(candidates: list[Candidate]) -> dict[str, Json]:
    keys = ("value", "drop_pp", "agreement", "mean_abs_logit_error", "holds_margin")
    return {f"{c.name}_{key}": c.validation[key] for c in candidates for key in keys} | {
        f"{c.name}_unsafe_pairs": c.unsafe_pairs for c in candidates
    }

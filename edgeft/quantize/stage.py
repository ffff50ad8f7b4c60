"""The compress stage: candidates of the deployment graph, each with what it is worth on validation.

Reads the train split (calibration), rows without labels (training) and the val split (temperature, comparison); never
test. Writes `candidates/<name>/model.onnx` and `candidates.json`. Which candidate ships is chosen later, on the device.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeft import catalog
from edgeft.core.errors import DataError, IntegrityError, UsageError
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.data.answers import Answers
from edgeft.data.dataset import Dataset
from edgeft.graph.endpoints import PIXELS
from edgeft.graph.load import load
from edgeft.quantize.calibration import Execution, Pixels
from edgeft.quantize.candidates import Bar, Candidate
from edgeft.quantize.compress import Evaluation, compress, write_candidates
from edgeft.quantize.config import CompressConfig
from edgeft.quantize.ladder import climb_rule, method_for
from edgeft.quantize.on_target import ONNXRUNTIME, target_outputs, this_device
from edgeft.quantize.rows import ArrayRows, Rows
from edgeft.quantize.rungs import Ladder, Method
from edgeft.quantize.static import StaticMethod


def run(ctx: Context, inputs: Inputs, config: CompressConfig) -> StageResult:
    """Make the candidates of `inputs["graph"]` on `inputs["data"]`; training follows `inputs["answers"]` where given.

    Raises:
        DataError: a split is empty, or an input folder is damaged.
        QuantizationError: the graph cannot be quantized, or its activations are not finite.
        UsageError: training shall follow a teacher, and the method trains nothing.
    """
    data = Dataset.open(inputs["data"])
    graph = load(inputs["graph"] / "model.onnx")
    bar = Bar(config.metric, config.max_drop_pp, ctx.seed_for("paired bootstrap"))
    val = data.indices("val")
    if len(val) == 0:
        raise DataError("the data has no validation rows to compare candidates on", hint="give data.split a val share")
    exporter = catalog.exporter(config.target)
    own = not exporter.cross and exporter.fingerprint().get("runtime") != ONNXRUNTIME
    outputs = target_outputs(exporter, ctx.threads) if own else None
    evaluation = Evaluation(data.part(val), data.labels[val], bar, outputs=outputs, calibrate=True)
    ladder, notes = None, []
    if config.precision != "fp32":
        rows = calibration_rows(data, config.calib_images, ctx.seed_for("calibration images"))
        if len(rows) < config.calib_images:
            notes.append(f"calibrated on all {len(rows)} training rows; {config.calib_images} were asked for")
        method = method_for(
            graph, exporter.placement, config.precision, config.method, config.bias_images, config.float_share
        )
        answers = _answers(inputs, data, method)
        ladder = Ladder(
            exporter.placement,
            method,
            rows,
            None if data.is_text else _Rows(data.pixels, data.studied()),
            climb_rule(config.method),
            ctx.seed_for("quantization-aware training"),
            answers=None if answers is None else answers.logits,
            memo=ctx.memo,
            device=this_device(exporter, rows, config.threads) if config.search else None,
            swap=config.swap_activations,
        )
    made = compress(graph, evaluation, ladder, execution=Execution(ctx.threads), emit=ctx.emit)
    write_candidates(ctx.folder, made.candidates)
    return StageResult(ctx.folder, _measurements(made.candidates), (*notes, *made.notes), made.timings)


def _answers(inputs: Inputs, data: Dataset, method: Method) -> Answers | None:
    """Return what training follows in place of float; None where the recipe does not ask for it."""
    if "answers" not in inputs:
        return None
    if not isinstance(method, StaticMethod):
        raise UsageError(
            f"compress.follow: teacher, and of this network `auto` makes {method.label}, which is not trained",
            hint="compress.method: qat",
        )
    found = Answers.open(inputs["answers"])
    if not np.array_equal(found.rows, data.studied()):
        raise IntegrityError(f"{inputs['answers']}: answers to other rows than the data's", hint="build again")
    return found


def calibration_rows(data: Dataset, count: int, seed: int) -> Rows:
    """Return up to `count` training rows, drawn without replacement, in drawn order; images are held in memory.

    Raises:
        DataError: the train split is empty.
    """
    rows = data.indices("train")
    if len(rows) == 0:
        raise DataError("the data has no training rows to calibrate on", hint="give data.split a train share")
    drawn = np.random.default_rng(seed).permutation(rows)[:count]
    if data.is_text:
        return data.part(drawn)
    order = np.argsort(drawn)
    pixels = np.empty((len(drawn), *data.pixels.shape[1:]), np.uint8)
    pixels[order] = data.pixels[drawn[order]]  # read in file order: the pixels are mapped from disk
    return ArrayRows(PIXELS, pixels)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The images of some rows, read from disk when they are asked for."""

    pixels: Pixels
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: NDArray[np.int64]) -> Pixels:
        return self.pixels[self.rows[chosen]]


def _measurements(candidates: tuple[Candidate, ...]) -> dict[str, Json]:
    keys = ("value", "drop_pp", "agreement", "mean_abs_logit_error", "holds_margin")
    return {f"{c.name}_{key}": c.judged.validation[key] for c in candidates for key in keys} | {
        f"{c.name}_unsafe_pairs": c.unsafe_pairs for c in candidates
    }

"""Run the float graph over calibration images and reduce what the plan needs, image by image.

All wanted tensors become graph outputs once. Each image goes through alone and is reduced to extremes, a sample and
means at once: all its observed tensors are alive together (28 MB on Lite0), so a batch would hold more, and took
longer. With more than one thread each computes and reduces an image of its own. Channel means are reduced inside the
graph (ReduceMean). Where a folder is given, statistics are kept in it by content (calibration_file.py): an
interrupted pass goes on from its last save with equal bits, and a pass whose statistics are there already does not run.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from edgeft.core.ahead import run_ahead
from edgeft.core.events import EventSink, Message, Progress, ignore
from edgeft.core.memory import give_back
from edgeft.graph.execute import run
from edgeft.quantize.affine import Doubles, Floats, QuantizationError
from edgeft.quantize.calibration_file import calibration_key, load_statistics, save_statistics
from edgeft.quantize.collected import CalibrationRequest, CalibrationStatistics
from edgeft.quantize.observers import Glance, Histogram, Sample, glance
from edgeft.quantize.one_input import Calibration

Pixels: TypeAlias = NDArray[np.uint8]

SAMPLES_PER_IMAGE = 8192
"""About so many values of one tensor are counted per image, fewer than twice as many: larger tensors are strided by an
odd number. Extremes are always over all values."""
THINNING = 11
"""Of the values counted, how many stand for one that is weighted by its channel. A prime that divides no usual width:
where channels lie innermost, the sample still meets all of them."""

_MEAN = "::channel_mean"
_SAVE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Execution:
    """How onnxruntime is run: `threads` intra-op threads, `batch` images at a time (or counted together).

    Without `optimise` quantized graphs run as they are written (`Placement.as_written`).
    """

    threads: int = 1
    batch: int = 8
    optimise: bool = True


_ROUNDS_FLOATS = ["WeightBiasQuantization"]
"""onnxruntime's own: it rounds a float convolution that stands between integers (`hold_float`, which comes last)."""


def make_session(model: ir.Model, threads: int, *, optimise: bool = True) -> ort.InferenceSession:
    """Return a CPU session of `model` that keeps no arena between batches, and whose idle threads sleep."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        ir.to_proto(model).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=_ROUNDS_FLOATS,
    )


def input_name(model: ir.Model, pixels: Calibration) -> str:
    """Return the name of the graph's single input after checking that `pixels` fit it.

    Raises:
        QuantizationError: no images, several inputs, another dtype or another shape.
    """
    inputs = model.graph.inputs
    if len(inputs) != 1:
        raise QuantizationError(
            f"the graph has {len(inputs)} inputs ({', '.join(str(v.name) for v in inputs)}), expected one: pixels",
            hint="pack several token inputs into one (edgeft.quantize.packed)",
        )
    value = inputs[0]
    if len(pixels) == 0:
        raise QuantizationError("the calibration set is empty", hint="compress.calib_images must be >= 1")
    dtype = None if value.dtype is None else value.dtype.numpy()
    if dtype is not None and pixels.dtype != dtype:
        raise QuantizationError(
            f"calibration data is {pixels.dtype}, but input {value.name!r} takes {dtype}",
            hint="pass raw pixels as the data stage wrote them",
        )
    expected = () if value.shape is None else tuple(value.shape)[1:]
    fits = pixels.ndim == len(expected) + 1 and all(
        not isinstance(want, int) or want == got for want, got in zip(expected, pixels.shape[1:], strict=False)
    )
    if value.shape is not None and not fits:
        raise QuantizationError(
            f"calibration data has shape {list(pixels.shape)}, but input {value.name!r} takes {value.shape}",
            hint="calibrate with the same input contract as the export",
        )
    return str(value.name)


def observe(
    model: ir.Model,
    pixels: Calibration,
    request: CalibrationRequest,
    *,
    execution: Execution | None = None,
    emit: EventSink = ignore,
    memo: Path | None = None,
) -> CalibrationStatistics:
    """Run `model` over `pixels` once and return what `request` asks for.

    Args:
        model: the float graph; left as it is.
        pixels: uint8 [N, H, W, 3], or whatever the graph's input takes.
        request: tensors to make histograms of, and tensors to average.
        execution: threads and batch.
        emit: where progress goes.
        memo: folder where statistics are kept by content; None keeps none.

    Raises:
        QuantizationError: the data does not fit the graph or is not finite, the graph lacks a tensor, or an activation
            is NaN or infinite.
    """
    execution = execution or Execution()
    name = input_name(model, pixels)
    probe, mean_names = _with_outputs(model, request.observed, request.means)
    path, statistics = _kept(memo, model, pixels, request, execution, emit)
    if statistics.images == len(pixels):
        return statistics
    session = make_session(probe, 1)
    give_back()
    outputs = [output.name for output in session.get_outputs()]
    saved = time.monotonic()
    for start in range(statistics.images, len(pixels), execution.batch):
        chunk = np.ascontiguousarray(pixels[start : start + execution.batch])
        _refuse_nonfinite(chunk, start)
        averaged = max(0, min(request.mean_images - start, len(chunk)))
        rows: dict[str, list[Doubles]] = {}

        def look(
            position: int, chunk: Pixels = chunk, averaged: int = averaged, first: int = start
        ) -> dict[str, Glance | Floats]:
            wanted = [o for o in outputs if o in request.observed or (o in mean_names and position < averaged)]
            feeds = {name: chunk[position : position + 1]}
            found = run(session, wanted, feeds, f"input {first + position}") if wanted else []  # [] would be all
            return {
                tensor: glance(values, _sample(values.size, position)) if tensor in request.observed else values
                for tensor, values in zip(wanted, found, strict=True)
                if values.size
            }

        for seen in run_ahead(look, range(len(chunk)), execution.threads):
            for tensor, found in seen.items():
                if isinstance(found, Glance):
                    statistics.histograms[tensor].add_(found, request.observed[tensor])
                else:
                    rows.setdefault(mean_names[tensor], []).append(found.mean(axis=0, dtype=np.float64))
        for tensor, parts in rows.items():
            total = np.stack(parts).sum(axis=0)
            statistics.mean_sums[tensor] = statistics.mean_sums.get(tensor, np.zeros_like(total)) + total
        statistics.images += len(chunk)
        statistics.mean_images += averaged
        done = statistics.images == len(pixels)
        if path is not None and (done or time.monotonic() - saved > _SAVE_SECONDS):
            save_statistics(path, statistics)
            saved = time.monotonic()
        emit(Progress("calibrate", statistics.images, len(pixels)))
    return statistics


def _kept(
    memo: Path | None,
    model: ir.Model,
    pixels: Calibration,
    request: CalibrationRequest,
    execution: Execution,
    emit: EventSink,
) -> tuple[Path | None, CalibrationStatistics]:
    """Return where the statistics are kept, and those that are there already or empty ones."""
    empty = CalibrationStatistics({tensor: Histogram(tensor) for tensor in request.observed})
    if not request.observed and not request.means:
        return None, replace(empty, images=len(pixels))
    if memo is None:
        return None, empty
    key = calibration_key(model, pixels, request, threads=execution.threads, batch=execution.batch)
    path = memo / f"{key}.calibration"
    found = load_statistics(path)
    if found is None:
        return path, empty
    whole = found.images == len(pixels)
    emit(Message("calibration: " + ("statistics are reused" if whole else f"goes on after {found.images} images")))
    return path, found


def _refuse_nonfinite(chunk: Pixels, start: int) -> None:
    if np.issubdtype(chunk.dtype, np.floating):
        bad = np.flatnonzero(~np.isfinite(chunk).reshape(len(chunk), -1).all(axis=1))
        if bad.size:
            raise QuantizationError(
                f"calibration image {start + int(bad[0])} holds NaN or Inf", hint="look at the preprocessing"
            )


def _sample(per_image: int, position: int) -> Sample:
    """Return which values of the image at `position` of its batch are counted: about SAMPLES_PER_IMAGE.

    The stride is odd, so that it does not follow rows or channels, and carries on over the images of a batch.
    """
    stride = max(1, per_image // SAMPLES_PER_IMAGE) | 1
    return Sample(stride, -position * per_image % stride, THINNING)


def _with_outputs(
    model: ir.Model, observed: Iterable[str], means: Mapping[str, int]
) -> tuple[ir.Model, dict[str, str]]:
    """Return a copy whose outputs are the observed tensors and [N, C] channel means, and mean output -> tensor."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    values |= {value.name: value for value in copy.graph.inputs}
    missing = [tensor for tensor in (*observed, *means) if tensor not in values]
    if missing:
        raise QuantizationError(f"the graph has no tensor {missing[0]!r} to observe")
    outputs = [values[name] for name in observed]
    names: dict[str, str] = {}
    for tensor, axis in means.items():
        outputs.append(_channel_mean(copy, values[tensor], axis))
        names[str(outputs[-1].name)] = tensor
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(outputs)
    for value in outputs:
        value.dtype = value.dtype or ir.DataType.FLOAT
    return copy, names


def _channel_mean(model: ir.Model, value: ir.Value, axis: int) -> ir.Value:
    """Append a ReduceMean over every axis but the first and `axis`; [N, C] tensors pass through Identity."""
    rank = None if value.shape is None else len(value.shape)
    if rank is None:
        raise QuantizationError(f"tensor {value.name!r} has no known rank", hint="run ONNX shape inference first")
    axes = [i for i in range(1, rank) if i != axis % rank]
    if axes:
        tensor = ir.tensor(np.asarray(axes, np.int64), name=f"{value.name}::axes")
        constant = ir.Value(name=tensor.name, const_value=tensor, type=ir.TensorType(ir.DataType.INT64))
        model.graph.register_initializer(constant)
        node = ir.node("ReduceMean", [value, constant], attributes={"keepdims": 0})
    else:
        node = ir.node("Identity", [value])
    node.outputs[0].name = f"{value.name}{_MEAN}"
    node.outputs[0].dtype = ir.DataType.FLOAT
    model.graph.append(node)
    return node.outputs[0]

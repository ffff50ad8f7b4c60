"""Run the float graph over calibration images and reduce what the plan needs, batch by batch.

All wanted tensors become graph outputs once; each batch is reduced to histograms and means and freed, so memory depends
on the batch, not on the number of images. Channel means are reduced inside the graph (ReduceMean).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from edgeft.core.events import EventSink, Progress, ignore
from edgeft.quantize.affine import Doubles, Floats, QuantizationError
from edgeft.quantize.observers import Histogram

Pixels: TypeAlias = NDArray[np.uint8]

SAMPLES_PER_IMAGE = 16_384
"""Values of one tensor counted per image; larger tensors are strided. Extremes are always over all values."""

_MEAN = "::channel_mean"


@dataclass(frozen=True, slots=True)
class CalibrationStatistics:
    """What calibration keeps.

    Args:
        histograms: one per observed tensor, over all images.
        means: tensor -> mean per channel, float64 [C], over the first `mean_images` images.
        images: how many images were seen.
    """

    histograms: Mapping[str, Histogram]
    means: Mapping[str, Doubles]
    images: int


@dataclass(frozen=True, slots=True)
class Execution:
    """How onnxruntime is run: `threads` intra-op threads, `batch` images at a time."""

    threads: int = 1
    batch: int = 8


def make_session(model: ir.Model, threads: int) -> ort.InferenceSession:
    """Return a CPU session of `model` that keeps no arena between batches."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])


def input_name(model: ir.Model, pixels: Pixels) -> str:
    """Return the name of the graph's single input after checking that `pixels` fit it.

    Raises:
        QuantizationError: no images, several inputs, another dtype or another shape.
    """
    inputs = model.graph.inputs
    if len(inputs) != 1:
        raise QuantizationError(
            f"the graph has {len(inputs)} inputs ({', '.join(str(v.name) for v in inputs)}), expected one: pixels",
            hint="static int8 is for graphs with one image input",
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
    pixels: Pixels,
    *,
    observed: Sequence[str],
    means: Mapping[str, int] | None = None,
    mean_images: int = 0,
    execution: Execution | None = None,
    emit: EventSink = ignore,
) -> CalibrationStatistics:
    """Run `model` over `pixels` once and return histograms and channel means.

    Args:
        model: the float graph; left as it is.
        pixels: uint8 [N, H, W, 3], or whatever the graph's input takes.
        observed: tensors to make histograms of.
        means: tensor -> channel axis (negative axes count from the end).
        mean_images: the means are over the first so many images.
        execution: threads and batch.
        emit: where progress goes.

    Raises:
        QuantizationError: the data does not fit the graph, or an activation is NaN or infinite.
    """
    execution = execution or Execution()
    name = input_name(model, pixels)
    probe, mean_names = _with_outputs(model, observed, means or {})
    session = make_session(probe, execution.threads)
    histograms = {tensor: Histogram(tensor) for tensor in observed}
    sums: dict[str, Doubles] = {}
    outputs = [output.name for output in session.get_outputs()]
    for start in range(0, len(pixels), execution.batch):
        chunk = np.ascontiguousarray(pixels[start : start + execution.batch])
        wanted = [o for o in outputs if o in histograms or (o in mean_names and start < mean_images)]
        for tensor, values in zip(wanted, session.run(wanted, {name: chunk}), strict=True):
            if tensor in histograms:
                histograms[tensor].update_(values, stride=_stride(values.size // len(chunk)))
            else:
                _add_means(sums, mean_names[tensor], values, max(0, min(mean_images - start, len(chunk))))
        emit(Progress("calibrate", min(start + execution.batch, len(pixels)), len(pixels)))
    count = min(mean_images, len(pixels))
    return CalibrationStatistics(histograms, {k: total / count for k, total in sums.items()}, len(pixels))


def _add_means(sums: dict[str, Doubles], tensor: str, values: Floats, used: int) -> None:
    """Add per-image channel means [N, C] of the first `used` images."""
    total = values[:used].astype(np.float64).sum(axis=0)
    sums[tensor] = sums.get(tensor, np.zeros_like(total)) + total


def _stride(per_image: int) -> int:
    """Return an odd stride that leaves about SAMPLES_PER_IMAGE values, so that it does not follow rows or channels."""
    return max(1, per_image // SAMPLES_PER_IMAGE) | 1


def _with_outputs(
    model: ir.Model, observed: Sequence[str], means: Mapping[str, int]
) -> tuple[ir.Model, dict[str, str]]:
    """Return a copy whose outputs are the observed tensors and [N, C] channel means, and mean output -> tensor."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    values |= {value.name: value for value in copy.graph.inputs}
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

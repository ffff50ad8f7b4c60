"""Choose weights and correct biases layer by layer, in order, on the quantized prefix.

For each operator, with inputs x_q as the integer graph computes them and the float graph's mean output m on the same
images:

    W'  = W cov(x_f, x_q) cov(x_q)^-1       (the weights that make W' x_q follow W x_f, x_f the float graph's inputs)
    W_q = argmin  e^T cov(x_q) e            (e = W_q - W'; scale search under the pair rule, then GPTQ)
    b   = m - W_q mean(x_q)                 (the operator's mean output is the float one again)

All are sums over inputs, so no layer runs twice: the sweep costs one integer and one float pass over its images.
Sources: Nagel et al. 2019, section 4.2 (bias correction), applied sequentially; Li et al. 2025 (GPTAQ: asymmetric
calibration); docs/quantization.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import onnx_ir as ir

from edgeft.core.events import EventSink, Progress, ignore
from edgeft.core.memory import give_back
from edgeft.quantize.affine import AffineParams, Doubles
from edgeft.quantize.calibration import Execution, Pixels
from edgeft.quantize.gptq import gptq
from edgeft.quantize.insert import IntegerWeight, insert_weight_, source_params
from edgeft.quantize.layout import WeightLayout, weight_layout
from edgeft.quantize.moments import InputMoments, MomentAccumulator
from edgeft.quantize.pair_rule import unsafe_pairs
from edgeft.quantize.placement import Placement
from edgeft.quantize.plan import IntegerOp, Plan, constant
from edgeft.quantize.prefix import HALF_HOLDS, Prefix
from edgeft.quantize.target import follow_float
from edgeft.quantize.weights import BIAS_LIMIT, scale_floor, search_scales

_LEVELS = 255
"""Steps of a scale from one end of a tensor's range to the other."""


@dataclass(frozen=True, slots=True)
class WeightMethod:
    """How weights are chosen.

    Args:
        search: search the scale of each channel; else qmax = 127.
        follow_float: move the weights so that outputs follow the float graph's in spite of quantized inputs.
        gptq: pass rounding errors on to later columns.
        correct_bias: restore the float mean of every output channel.
    """

    search: bool = True
    follow_float: bool = True
    gptq: bool = True
    correct_bias: bool = True


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep did.

    Args:
        unsafe_pairs: over all paired operators; 0 where the target asks for pair-safe weights.
        uncorrected: operators whose mean could not be restored: they take no bias.
    """

    unsafe_pairs: int
    uncorrected: tuple[str, ...]


def quantize_weights_(  # noqa: PLR0913 - one sweep, every argument is a different thing
    model: ir.Model,
    float_model: ir.Model,
    plan: Plan,
    placement: Placement,
    params: Mapping[str, AffineParams],
    float_means: Mapping[str, Doubles],
    pixels: Pixels,
    *,
    method: WeightMethod,
    execution: Execution,
    emit: EventSink = ignore,
) -> Sweep:
    """Replace every planned weight of `model` by integers, in order.

    Args:
        model: the graph with activation Q/DQ inserted; changed in place.
        float_model: the graph as it was before.
        plan: made from this very model object.
        placement: of the target.
        params: activation parameters by tensor.
        float_means: float output channel means [C] by tensor, over `pixels`.
        pixels: the images of the quantized prefix.
        method: how weights are chosen.
        execution: threads and batch.
        emit: where progress goes.
    """
    inputs = [_integer_input(op) for op in plan.weighted]
    prefix = Prefix(model, inputs, pixels, execution)
    tensors = [str(op.inputs[0].name) for op in plan.weighted]
    float_inputs = _named(float_model, tensors)
    known = {tensor: source_params(model, plan, tensor, params) for tensor in tensors}
    least, most = HALF_HOLDS
    wide = {tensor for tensor, each in known.items() if not least <= _LEVELS * float(each.scale) <= most}
    float_prefix = Prefix(float_model, float_inputs, pixels, execution, wide)
    counts = [len(pixels[start : start + execution.batch]) for start in range(0, len(pixels), execution.batch)]
    unsafe = 0
    uncorrected = []
    for done, (op, source, float_source) in enumerate(zip(plan.weighted, inputs, float_inputs, strict=True), start=1):
        layout = layout_of(op)
        input_params = known[str(op.inputs[0].name)]
        related = method.follow_float or method.gptq
        moments = MomentAccumulator(layout, input_params, len(pixels), covariance=related)
        reals = float_prefix.advance(float_source) if method.follow_float else repeat(None, len(counts))
        for chunk, real, images in zip(prefix.advance(source), reals, counts, strict=True):
            moments.add(chunk, real, images=images)
        give_back()  # chunks of wide tensors are gone; rounding shall not come on top of them
        mean = float_means[str(op.node.outputs[0].name)] if method.correct_bias else None
        if method.correct_bias and op.rule.bias is None:
            uncorrected.append(op.name)
        weight = choose_weight(op, layout, moments.result(), float(input_params.scale), mean, method, placement)
        if not layout.depthwise:
            unsafe += unsafe_pairs(layout.to_matrix(weight.values))
        insert_weight_(model, op, weight, layout.axis)
        emit(Progress("round weights", done, len(inputs), op.name))
    return Sweep(unsafe, tuple(uncorrected))


def layout_of(op: IntegerOp) -> WeightLayout:
    """Return the layout of `op`'s float weight."""
    weight = np.asarray(constant(op.node.inputs[op.rule.weight or 0]))
    axis = op.rule.channel_axis(transposed=bool(op.node.attributes.get_int("transB", 0)))
    return weight_layout(op.node, weight.shape, axis or 0)


def choose_weight(
    op: IntegerOp,
    layout: WeightLayout,
    moments: InputMoments,
    input_scale: float,
    float_mean: Doubles | None,
    method: WeightMethod,
    placement: Placement,
) -> IntegerWeight:
    """Return the integer weight and bias of `op`.

    Args:
        op: an operator with a weight.
        layout: of the weight.
        moments: of the quantized inputs, in real units.
        input_scale: scale of the quantized input.
        float_mean: float64 [C] that the mean output shall have; None keeps the bias as it is.
        method: how weights are chosen.
        placement: of the target: whether the pair rule holds, and whether the bias stays float.
    """
    pair_safe, float_bias = placement.saturating_pairs and not layout.depthwise, placement.bias is None
    weight = constant(op.node.inputs[op.rule.weight or 0])
    matrix = layout.to_matrix(np.asarray(weight)).astype(np.float64)
    if moments.cross is not None and moments.covariance is not None:
        matrix = follow_float(matrix, moments.covariance, moments.cross)
    bias = _float_bias(op, layout.channels)
    if float_mean is not None and op.rule.bias is not None:
        bias = float_mean - _mean_output(matrix, moments)
    floor = scale_floor(np.zeros_like(bias) if float_bias else bias, input_scale).reshape(matrix.shape[:2])
    integers = search_scales(matrix, moments.variance, floor, pair_safe=pair_safe, search=method.search)
    if method.gptq and moments.covariance is not None:
        integers = gptq(matrix, moments.covariance, integers, pair_safe=pair_safe)
    if float_mean is not None and op.rule.bias is not None:
        bias = float_mean - _mean_output(integers.real, moments)
    scale = integers.scale.reshape(-1)
    bias_scale = np.float32(input_scale) * scale
    values = layout.from_matrix(integers.values)
    if op.rule.bias is None:
        return IntegerWeight(values, scale, None, bias_scale)
    if float_bias:
        return IntegerWeight(values, scale, bias.astype(np.float32), bias_scale)
    steps = np.clip(np.rint(bias / bias_scale.astype(np.float64)), -2 * BIAS_LIMIT + 1, 2 * BIAS_LIMIT - 1)
    return IntegerWeight(values, scale, steps.astype(np.int32), bias_scale)


def _integer_input(op: IntegerOp) -> ir.Value:
    """Return the integer tensor behind the DQ that feeds `op`."""
    value = op.node.inputs[op.rule.activations[0]]
    producer = None if value is None else value.producer()
    source = None if producer is None else producer.inputs[0]
    if source is None:
        message = f"{op.name} is not fed by a DequantizeLinear"
        raise ValueError(message)
    return source


def _named(model: ir.Model, names: list[str]) -> list[ir.Value]:
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    return [values[name] if name in values else model.graph.inputs[0] for name in names]


def _float_bias(op: IntegerOp, channels: int) -> Doubles:
    index = op.rule.bias
    value = op.node.inputs[index] if index is not None and index < len(op.node.inputs) else None
    array = constant(value)
    return np.zeros(channels) if array is None else np.broadcast_to(array.astype(np.float64).reshape(-1), (channels,))


def _mean_output(matrix: Doubles, moments: InputMoments) -> Doubles:
    """Return W mean(x), float64 [C]."""
    return (matrix @ moments.mean[:, :, None]).reshape(-1)

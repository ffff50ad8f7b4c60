"""An exact evaluator of Q/DQ graphs: what integer kernels must return, bit for bit, on any CPU that does not saturate.

Between a DQ and the next Q nothing is computed in float: the operator keeps its integer sums until the Q says on which
grid they are wanted, as the fused kernels do. Operators that read floats run in onnx's reference evaluator, and so does
every operator without an integer kernel here. Quantized tensors equal onnxruntime's exactly; float tensors to a few
ulp, and Sigmoid to one level, because onnxruntime approximates it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from edgeft.quantize import integer_kernels as kernels
from edgeft.quantize.affine import (
    AffineParams,
    Floats,
    Integers,
    PerAxis,
    PerTensor,
    QuantizationError,
    dequantize,
    quantize,
)
from edgeft.quantize.layout import WeightLayout, weight_layout
from edgeft.quantize.placement import IntegerType
from edgeft.quantize.plan import clip_limits

_MOVES = ("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "MaxPool")
_BINARY = {"Add": (kernels.add, np.add), "Mul": (kernels.multiply, np.multiply)}
_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class Dequantized:
    """The result of a DQ: integers and what they stand for."""

    q: Integers
    params: AffineParams

    def real(self) -> Floats:
        """Return the float values."""
        return dequantize(self.q, self.params)

    def on_grid(self, params: AffineParams) -> Integers:
        """Return the integers on the grid of `params`."""
        same = params.dtype == self.params.dtype and np.array_equal(params.scale, self.params.scale)
        return (
            self.q
            if same and np.array_equal(params.zero_point, self.params.zero_point)
            else quantize(self.real(), params)
        )


@dataclass(frozen=True, slots=True)
class Pending:
    """The result of an integer operator that waits for its Q.

    Args:
        on_grid: output parameters -> integers, in exact arithmetic.
        real: the float values, where a float operator reads them instead.
    """

    on_grid: Callable[[AffineParams], Integers]
    real: Callable[[], Floats]


Value: TypeAlias = NDArray[Any] | Dequantized | Pending


def evaluate(
    model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Return the tensors `outputs` of a Q/DQ graph.

    Args:
        model: opset 13 or later.
        feeds: input name -> array.
        outputs: tensors to return; the graph's own outputs where None. Tensors behind a Q are integers.

    Raises:
        QuantizationError: an int32 sum overflows, or a pool is of a kind that has no exact kernel here.
    """
    graph = ir.from_proto(model).graph
    values: dict[str, Value] = {**feeds}
    for name, initializer in graph.initializers.items():
        if initializer.const_value is not None:
            values[name] = np.asarray(initializer.const_value.numpy())
    wanted = list(outputs) if outputs is not None else [str(value.name) for value in graph.outputs]
    found: dict[str, NDArray[Any]] = {}
    for node in graph:
        results = _run(node, values, graph.opset_imports[""])
        values.update({str(v.name): result for v, result in zip(node.outputs, results, strict=True) if v.name})
    for name in wanted:
        found[name] = _real(values[name])
    return found


def _real(value: Value) -> NDArray[Any]:
    return value if isinstance(value, np.ndarray) else value.real()


def _run(node: ir.Node, values: Mapping[str, Value], opset: int) -> list[Value]:
    inputs = [None if value is None or not value.name else values[str(value.name)] for value in node.inputs]
    if node.op_type == "DequantizeLinear":
        return [_dequantized(node, inputs)]
    if node.op_type == "QuantizeLinear":
        x, params = inputs[0], _params(node, inputs[1], inputs[2])
        return [quantize(x, params) if isinstance(x, np.ndarray) else x.on_grid(params)]  # type: ignore[union-attr]  # Q has an input
    integer = _integer_operator(node, inputs, opset)
    if integer is not None:
        return [integer]
    return list(_float_operator(node, inputs, opset))


def _integer_operator(node: ir.Node, inputs: list[Value | None], opset: int) -> Value | None:
    """Return the pending result of `node` where it reads integers and has a kernel here, else None."""
    first = inputs[0]
    if node.op_type in {"Relu", "Clip"} and isinstance(first, Pending):
        return _bounded(first, clip_limits(node))
    if not isinstance(first, Dequantized):
        return None
    if node.op_type in {"Conv", "Gemm", "MatMul"} and isinstance(inputs[1], Dequantized):
        return _weighted(node, first, inputs[1], inputs[2] if len(inputs) > 2 else None)  # noqa: PLR2004 - optional bias
    second = inputs[1] if len(inputs) > 1 else None
    if node.op_type in _BINARY and isinstance(second, Dequantized):
        kernel, real = _BINARY[node.op_type]
        return Pending(
            lambda params: kernel(first.q, first.params, second.q, second.params, params),
            lambda: real(first.real(), second.real()),
        )
    if node.op_type in _MOVES:
        return _moved(node, first, inputs, opset)
    return _pooled_or_mapped(node, first, inputs, opset)


def _pooled_or_mapped(node: ir.Node, x: Dequantized, inputs: list[Value | None], opset: int) -> Value | None:
    def real() -> Floats:
        return np.asarray(_float_operator(node, inputs, opset)[0])

    if node.op_type == "GlobalAveragePool":
        return Pending(lambda params: kernels.global_average(x.q, x.params, params), real)
    if node.op_type == "AveragePool":
        window, include_pad = _window(node, x.q), bool(node.attributes.get_int("count_include_pad", 0))
        return Pending(lambda params: kernels.average(x.q, x.params, window, params, include_pad=include_pad), real)
    if node.op_type in {"LeakyRelu", "Sigmoid"}:
        return Pending(lambda params: quantize(real(), params), real)
    if node.op_type == "Concat":
        parts = [part for part in inputs if isinstance(part, Dequantized)]
        if len(parts) == len(inputs):
            axis = node.attributes.get_int("axis", 0)
            return Pending(lambda params: np.concatenate([part.on_grid(params) for part in parts], axis=axis), real)
    return None


def _weighted(node: ir.Node, x: Dequantized, weight: Dequantized, bias: Value | None) -> Pending:
    transposed = bool(node.attributes.get_int("transB", 0))
    layout = weight_layout(node, weight.q.shape, 0 if node.op_type == "Conv" or transposed else 1)
    axis = 1 if node.op_type == "Conv" else -1
    sums = kernels.accumulate(x.q, int(x.params.zero_point), weight.q, layout)
    total = kernels.with_bias(sums, bias.q if isinstance(bias, Dequantized) else None, axis)
    scale = x.params.scale * weight.params.scale

    def real() -> Floats:
        shape = [1] * total.ndim
        shape[axis] = -1
        result: Floats = total.astype(np.float32) * (scale.reshape(shape) if scale.ndim else scale)
        return result if bias is None or isinstance(bias, Dequantized) else result + _real(bias)

    return Pending(lambda params: kernels.requantize(total, scale / params.scale, params, axis), real)


def _bounded(pending: Pending, limits: tuple[float, float] | None) -> Pending | None:
    """Return `pending` behind a Relu or Clip, which vanishes where the Q cannot reach past its limits."""
    if limits is None:
        return None
    low, high = limits

    def on_grid(params: AffineParams) -> Integers:
        bounds = np.iinfo(params.dtype.value)
        reach = dequantize(np.array([bounds.min, bounds.max], np.int32), params)
        if reach[0] >= low - _EPSILON and reach[1] <= high + _EPSILON:
            return pending.on_grid(params)
        return quantize(np.clip(pending.real(), low, high), params)

    return Pending(on_grid, lambda: np.clip(pending.real(), np.float32(low), np.float32(high)))


def _moved(node: ir.Node, x: Dequantized, inputs: list[Value | None], opset: int) -> Dequantized:
    """Return `x` after an operator that only moves or selects values."""
    if node.op_type == "MaxPool":
        return Dequantized(kernels.maximum(x.q, _window(node, x.q)), x.params)
    moved = _float_operator(node, [x.q, *inputs[1:]], opset)[0]
    return Dequantized(np.asarray(moved), x.params)


def _window(node: ir.Node, x: Integers) -> WeightLayout:
    """Return a pool as the layout of a depthwise convolution."""
    if node.attributes.get_int("ceil_mode", 0) or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        raise QuantizationError(f"{node.op_type} {node.name!r}: ceil_mode and auto_pad have no exact kernel here")
    kernel = tuple(int(size) for size in np.asarray(node.attributes["kernel_shape"].as_ints()))
    channels = x.shape[1]
    geometry = weight_layout(ir.node("Conv", [], dict(_geometry(node))), (channels, 1, *kernel), 0).geometry
    return WeightLayout((channels, 1, *kernel), 0, channels, geometry)


def _geometry(node: ir.Node) -> Mapping[str, ir.Attr]:
    return {key: node.attributes[key] for key in ("strides", "dilations", "pads") if key in node.attributes}


def _dequantized(node: ir.Node, inputs: list[Value | None]) -> Dequantized:
    zero_point = inputs[2] if len(inputs) > 2 else None  # noqa: PLR2004 - optional third input
    return Dequantized(np.asarray(inputs[0]), _params(node, inputs[1], zero_point, np.asarray(inputs[0]).dtype))


def _params(
    node: ir.Node, scale: Value | None, zero_point: Value | None, dtype: np.dtype[Any] | None = None
) -> AffineParams:
    scales = np.asarray(scale, np.float32)
    zeros = np.zeros(scales.shape, dtype or np.uint8) if zero_point is None else np.asarray(zero_point)
    granularity = PerAxis(node.attributes.get_int("axis", 1)) if scales.ndim and scales.size > 1 else PerTensor()
    if isinstance(granularity, PerTensor):
        scales, zeros = scales.reshape(()), zeros.reshape(())
    return AffineParams(scales, zeros, IntegerType(zeros.dtype.name), granularity)


def _float_operator(node: ir.Node, inputs: Sequence[Value | None], opset: int) -> list[NDArray[Any]]:
    """Return the outputs of `node` by onnx's reference evaluator."""
    proto = ir.to_proto(node)
    feeds = {
        str(value.name): _real(array)
        for value, array in zip(node.inputs, inputs, strict=True)
        if value is not None and array is not None
    }
    return list(ReferenceEvaluator(proto, opsets={"": opset}).run(None, feeds))

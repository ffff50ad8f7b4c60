"""A Q/DQ graph made trainable, kept lawful, and written back.

    int8 weight -> DQ            becomes     float weight -> Q -> DQ          (starting at what the integers stand for)
    int32 bias -> DQ             becomes     float bias                       (its grid is some 10^5 times finer)
    Q whose input an operator only moved     takes the very scale of its source

Weights keep their per-channel scales; scales of activations may be learned (`edgeft.graph.torch_ops.quantize`). What
training may not break is restored by `project_` after each step: see there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import numpy_helper

from edgeft.graph.module import GraphModule
from edgeft.quantize.affine import SMALLEST_SCALE, Doubles, Floats, Integers, QuantizationError
from edgeft.quantize.insert import add_initializer_
from edgeft.quantize.layout import WeightLayout, weight_layout
from edgeft.quantize.pair_rule import repair
from edgeft.quantize.placement import OutputRule, Placement
from edgeft.quantize.plan import clip_limits, constant
from edgeft.quantize.weights import BIAS_LIMIT

_QMAX = 127
_BIAS_INDEX = 2
_LARGEST_BIAS = 2 * BIAS_LIMIT - 1


@dataclass(frozen=True, slots=True)
class TrainableLayer:
    """One integer operator with weights; all names are those of initializers.

    Args:
        integers: the int8 weight of the Q/DQ graph.
        weight: the float weight that stands in for it.
        scale: per output channel.
        input_scale: of the operator's input.
        layout: of the weight.
        bias: (int32 bias, its scale, the float bias that stands in for it), or None.
        float_bias: the bias of a target that leaves it float, or None.
    """

    integers: str
    weight: str
    scale: str
    input_scale: str
    layout: WeightLayout
    bias: tuple[str, str, str] | None
    float_bias: str | None = None

    @property
    def trained_bias(self) -> str | None:
        """The float that is trained as its bias."""
        return self.float_bias if self.bias is None else self.bias[2]


class TrainableGraph:
    """The trainable form of a Q/DQ graph.

    Args:
        quantized: a graph made by `quantize_static`; left as it is.
        placement: of its target.

    Raises:
        QuantizationError: the graph has no integer operator with weights.
        UnsupportedNodeError: an operator cannot be trained through; names the node.
    """

    def __init__(self, quantized: onnx.ModelProto, placement: Placement) -> None:
        self._quantized, self._pair_safe = quantized, placement.saturating_pairs
        model = ir.from_proto(quantized)
        moves = {rule.op_type for rule in placement.rules if rule.output is OutputRule.SHARE}
        self._tied = _tie_scales_(model, moves)
        self._bounds = _scale_bounds(model)
        self.layers = _unfold_(model)
        if not self.layers:
            raise QuantizationError("the graph has no integer weights to train", hint="quantize it first")
        biases = [layer.trained_bias for layer in self.layers if layer.trained_bias is not None]
        self.scales = tuple(self._bounds)
        self.module = GraphModule(model, trainable=[*(layer.weight for layer in self.layers), *biases, *self.scales])

    @torch.no_grad()
    def project_(self) -> None:
        """Restore what a step may have broken.

        - weights stay within +-127 steps, and pairs stay safe: a pair that rounds to an unsafe one moves to the
          nearest safe one (`pair_rule.repair`);
        - a scale stays positive and never lets its Q reach past the Clip or Relu that it makes redundant;
        - a bias stays within what its int32 holds. (Not the input's scale gives way: near-dead channels start at the
          limit, and one of them would coarsen the whole tensor.)
        """
        for layer in self.layers:
            target, scale = self._steps(layer)
            integers = np.clip(np.rint(target), -_QMAX, _QMAX)
            lawful = np.clip(target, -_QMAX, _QMAX)
            if self._pair_safe and not layer.layout.depthwise:
                safe = repair(integers, target, np.ones(target.shape[-1]))
                lawful = np.where(safe == integers, lawful, safe)
            # the others keep their bits: stored anew, a value next to a tie could round the other way
            moved, weight = layer.layout.from_matrix(lawful != target), self._array(layer.weight)
            weight[moved] = layer.layout.from_matrix((lawful * scale).astype(np.float32))[moved]
        for name, upper in self._bounds.items():
            self.module.tensor(name).clamp_(SMALLEST_SCALE, upper)
        for layer in self.layers:
            if layer.bias is not None:
                bias, limit = self._array(layer.bias[2]), self._bias_step(layer) * np.float32(BIAS_LIMIT)
                np.clip(bias, -limit, limit, out=bias)

    def write_back(self) -> onnx.ModelProto:
        """Return the Q/DQ graph with the trained integers and scales; `project_` must have run last.

        Raises:
            QuantizationError: a bias does not fit int32.
        """
        arrays: dict[str, Integers] = {name: self._array(name) for name in self.scales}
        arrays |= {name: arrays[source] for name, source in self._tied.items() if source in arrays}
        for layer in self.layers:
            target, _ = self._steps(layer)
            integers = np.clip(np.rint(target), -_QMAX, _QMAX)
            arrays[layer.integers] = layer.layout.from_matrix(integers.astype(np.int8))
            if layer.float_bias is not None:
                arrays[layer.float_bias] = self._array(layer.float_bias)
            if layer.bias is not None:
                integer_bias, bias_scale, real = layer.bias
                step = self._bias_step(layer)
                rounded = np.rint(self._array(real).astype(np.float64) / step)
                if np.abs(rounded).max(initial=0) > _LARGEST_BIAS:
                    raise QuantizationError(f"bias {integer_bias!r} does not fit int32 after training")
                arrays |= {integer_bias: rounded.astype(np.int32), bias_scale: step.astype(np.float32)}
        return _replaced(self._quantized, arrays)

    def _steps(self, layer: TrainableLayer) -> tuple[Doubles, Doubles]:
        """Return the weight in steps of its grid [G, O, K], divided in float32 as Q does, and its scale [G, O, 1]."""
        matrix = layer.layout.to_matrix(self._array(layer.weight))
        scale = self._array(layer.scale).reshape(*matrix.shape[:2], 1)
        return (matrix / scale).astype(np.float64), scale.astype(np.float64)

    def _array(self, name: str) -> Integers:
        """Return the memory of a tensor of the module."""
        array: Integers = self.module.tensor(name).detach().numpy()
        return array

    def _bias_step(self, layer: TrainableLayer) -> Floats:
        """Return what one unit of the layer's integer biases stands for, float32 [O]."""
        step: Floats = self._array(layer.input_scale) * self._array(layer.scale)
        return step


def _tie_scales_(model: ir.Model, moves: set[str]) -> dict[str, str]:
    """Make each Q behind an operator that only moves values read its source's scale; return old name -> source's."""
    tied = {}
    for node in model.graph:
        if node.op_type != "QuantizeLinear":
            continue
        source = _source(node, moves)
        own, shared = node.inputs[1], None if source is None else source.inputs[1]
        if source is None or own is None or shared is None or own is shared or not _same_grid(node, source):
            continue
        tied[str(own.name)] = str(shared.name)
        own.replace_all_uses_with(shared)
    return tied


def _source(node: ir.Node, moves: set[str]) -> ir.Node | None:
    """Return the DQ whose integers reach the Q `node` through moves alone, or None."""
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    if producer is None or producer.op_type not in moves or producer.inputs[0] is None:
        return None
    before = producer.inputs[0].producer()
    return before if before is not None and before.op_type == "DequantizeLinear" else None


def _same_grid(a: ir.Node, b: ir.Node) -> bool:
    """Return whether two nodes, each a Q or a DQ, have equal scales and zero points; one that is left out is 0."""
    (scale, zero), (other_scale, other_zero) = map(_grid, (a, b))
    return np.array_equal(scale, other_scale) and bool(np.all(zero == other_zero))


def _grid(node: ir.Node) -> tuple[Integers, Integers]:
    """Return scale and zero point of a Q or DQ."""
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None  # noqa: PLR2004 - optional third input
    return np.asarray(constant(node.inputs[1])), np.asarray(0) if zero is None else zero


def _scale_bounds(model: ir.Model) -> dict[str, float]:
    """Return each activation scale that may be learned -> the largest value that its Clip or Relu allows.

    Where a calibrated scale reaches past a limit, the Q does not stand for that limit, and nothing is bounded.

    The scale of integers that no Q makes is a fact about the input (pixels) and is not learned, nor are the two of
    integers that are read on another grid than they were made on: these are what a gate computes.
    """
    given: set[ir.Value | None] = set()
    for node in model.graph:
        if node.op_type == "DequantizeLinear":
            made = _q_of(node)
            scales = {node.inputs[1], node.inputs[1] if made is None else made.inputs[1]}
            given |= scales if made is None or len(scales) > 1 else set()
    bounds: dict[str, float] = {}
    for node in model.graph:
        scale = node.inputs[1] if node.op_type == "QuantizeLinear" else None
        zero_point = constant(node.inputs[2]) if scale is not None else None
        if scale is None or scale in given or zero_point is None:
            continue
        calibrated = np.float32(constant(scale))
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        limits = None if producer is None else clip_limits(producer)
        info = np.iinfo(zero_point.dtype)
        upper = np.inf
        for limit, steps in zip(limits or (), (info.min - int(zero_point), info.max - int(zero_point)), strict=False):
            reach = np.float32(steps) * calibrated
            if np.isfinite(limit) and limit and steps and abs(reach) <= abs(limit):  # 0 is kept by the zero point
                upper = min(upper, limit / steps)
        # one float32 below: the product with the number of steps must not round past the limit
        largest = float(np.nextafter(np.float32(upper), np.float32(0))) if np.isfinite(upper) else float("inf")
        bounds[str(scale.name)] = min(bounds.get(str(scale.name), float("inf")), largest)
    return bounds


def _q_of(dq: ir.Node) -> ir.Node | None:
    """Return the Q that makes what `dq` reads, or None."""
    producer = None if dq.inputs[0] is None else dq.inputs[0].producer()
    return producer if producer is not None and producer.op_type == "QuantizeLinear" else None


def _unfold_(model: ir.Model) -> tuple[TrainableLayer, ...]:
    """Put floats and a Q in front of every weight's DQ, and a float in the place of every bias's."""
    layers = []
    for node in tuple(model.graph):
        weight = _constant_dq(node, 1) if node.op_type in {"Conv", "Gemm", "MatMul"} else None
        source = node.inputs[0].producer() if weight is not None and node.inputs[0] is not None else None
        if weight is None or source is None or source.op_type != "DequantizeLinear":
            continue
        values = np.asarray(constant(weight.inputs[0]))
        axis, integers = weight.attributes.get_int("axis", 1), _name(weight, 0)
        layers.append(
            TrainableLayer(
                integers=integers,
                weight=_unfold_weight_(model, weight, values, axis),
                scale=_name(weight, 1),
                input_scale=_name(source, 1),
                layout=weight_layout(node, values.shape, axis),
                bias=_unfold_bias_(model, node),
                float_bias=_float_bias(node),
            )
        )
    return tuple(layers)


def _unfold_weight_(model: ir.Model, dq: ir.Node, values: Integers, axis: int) -> str:
    """Feed `dq` from Q(float weight); return the float weight's name."""
    shape = [1] * values.ndim
    shape[axis] = -1
    real = values.astype(np.float32) * np.asarray(constant(dq.inputs[1])).reshape(shape)
    name = f"{_name(dq, 0)}::real"
    latent = add_initializer_(model, name, real)
    q = ir.node("QuantizeLinear", [latent, *dq.inputs[1:]], attributes={"axis": axis}, name=f"{name}::Q")
    q.outputs[0].name = f"{name}::q"
    model.graph.insert_before(dq, [q])
    dq.replace_input_with(0, q.outputs[0])
    return name


def _unfold_bias_(model: ir.Model, node: ir.Node) -> tuple[str, str, str] | None:
    dq = _constant_dq(node, _BIAS_INDEX)
    if dq is None:
        return None
    name = f"{_name(dq, 0)}::real"
    real = np.asarray(constant(dq.inputs[0])).astype(np.float64) * np.asarray(constant(dq.inputs[1]))
    dq.outputs[0].replace_all_uses_with(add_initializer_(model, name, real.astype(np.float32)))
    return _name(dq, 0), _name(dq, 1), name


def _float_bias(node: ir.Node) -> str | None:
    """Return the initializer that is the float bias of `node`, or None."""
    value = node.inputs[_BIAS_INDEX] if len(node.inputs) > _BIAS_INDEX else None
    array = constant(value)
    return str(value.name) if value is not None and array is not None and value.is_initializer() else None


def _constant_dq(node: ir.Node, index: int) -> ir.Node | None:
    """Return the DQ of constant integers that feeds input `index` of `node`, or None."""
    value = node.inputs[index] if index < len(node.inputs) else None
    producer = None if value is None else value.producer()
    is_dq = producer is not None and producer.op_type == "DequantizeLinear"
    return producer if is_dq and producer is not None and constant(producer.inputs[0]) is not None else None


def _name(node: ir.Node, index: int) -> str:
    value = node.inputs[index]
    return "" if value is None else str(value.name)


def _replaced(model: onnx.ModelProto, arrays: Mapping[str, Integers]) -> onnx.ModelProto:
    """Return a copy of `model` with other values for some initializers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(numpy_helper.from_array(np.array(arrays[tensor.name], order="C"), tensor.name))
    return copy

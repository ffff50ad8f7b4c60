"""Write Q/DQ pairs into a float graph as a plan says.

activation:  x -> Q(scale, zero) -> DQ -> consumers
weight:      int8 initializer -> DQ(per channel) -> operator
bias:        int32 initializer -> DQ(scale = input scale * weight scale) -> operator
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeft.quantize.affine import AffineParams, Floats, Integers
from edgeft.quantize.placement import IntegerType
from edgeft.quantize.plan import IntegerOp, Plan, constant


@dataclass(frozen=True, slots=True)
class IntegerWeight:
    """The integers that stand for one operator's weight and bias.

    Args:
        values: integers in the weight's own shape.
        scale: float32 [C], per output channel.
        bias: int32 [C], float32 [C] where the target leaves biases float, or None where the operator takes none.
        bias_scale: float32 [C] = input scale * weight scale.
    """

    values: Integers
    scale: Floats
    bias: NDArray[np.int32] | Floats | None
    bias_scale: Floats


def insert_activations_(model: ir.Model, plan: Plan, params: Mapping[str, AffineParams]) -> None:
    """Give every planned tensor of `model` its Q and DQ; every consumer reads the DQ.

    But a weighted operator that stays float goes on reading a tensor that is float anyway: weights and inputs are
    quantized both or not at all.

    Args:
        model: the float graph that `plan` was made from; changed in place.
        plan: which tensors.
        params: parameters by observed tensor.
    """
    tensors = (*plan.observed, *plan.shared)
    made = {str(op.output.name) for op in plan.ops if op.output is not None}
    taken, weighted = {op.node for op in plan.ops}, {op.node.op_type for op in plan.weighted}
    apart = {
        (use.node, use.idx): value
        for value in map(_values(model).__getitem__, tensors)
        if str(value.name) not in made
        for use in value.uses()
        if use.node.op_type in weighted and use.node not in taken
    }
    insert_pairs_(
        model, {tensor: params.get(tensor) or source_params(model, plan, tensor, params) for tensor in tensors}
    )
    for (node, index), value in apart.items():
        node.replace_input_with(index, value)


def insert_pairs_(model: ir.Model, params: Mapping[str, AffineParams]) -> None:
    """Give every tensor of `params` its Q and DQ; every consumer reads the DQ."""
    values = _values(model)
    for tensor, found in params.items():
        _insert_pair_(model, values[tensor], found)


def source_params(model: ir.Model, plan: Plan, tensor: str, params: Mapping[str, AffineParams]) -> AffineParams:
    """Return the parameters of `tensor`, following operators that only move values back to their source."""
    while tensor in plan.shared:
        tensor = plan.shared[tensor]
    if tensor in params:
        return params[tensor]
    return input_params(_values(model)[tensor])


def input_params(value: ir.Value) -> AffineParams:
    """Return the parameters of a `value` that comes from a DequantizeLinear with constant parameters."""
    node = value.producer()
    scale = constant(node.inputs[1]) if node is not None and node.op_type == "DequantizeLinear" else None
    if node is None or scale is None:
        message = f"tensor {value.name!r} is not dequantized from constants"
        raise KeyError(message)
    zero_point = constant(node.inputs[2]) if len(node.inputs) > 2 else None  # noqa: PLR2004 - optional third input
    zero = np.asarray(0, np.uint8) if zero_point is None else zero_point
    return AffineParams(scale.reshape(()), zero.reshape(()), IntegerType(zero.dtype.name))


def insert_weight_(model: ir.Model, op: IntegerOp, weight: IntegerWeight, axis: int) -> None:
    """Replace `op`'s float weight by integers and their DQ, its bias likewise or by floats; `op.node` is in `model`."""
    node, rule = op.node, op.rule
    prefix = str(node.outputs[0].name)
    _replace_input_(model, node, rule.weight or 0, f"{prefix}::weight", weight.values, weight.scale, axis)
    if rule.bias is not None and weight.bias is not None:
        while len(node.inputs) <= rule.bias:
            node.resize_inputs(rule.bias + 1)
        if weight.bias.dtype == np.float32:
            node.replace_input_with(rule.bias, add_initializer_(model, f"{prefix}::bias", weight.bias))
        else:
            _replace_input_(model, node, rule.bias, f"{prefix}::bias", weight.bias, weight.bias_scale, 0)


def add_initializer_(model: ir.Model, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Register `array` as an initializer of `model` and return its value."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    model.graph.register_initializer(value)
    return value


def _values(model: ir.Model) -> dict[str, ir.Value]:
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    return values | {str(value.name): value for value in model.graph.inputs}


def _insert_pair_(model: ir.Model, value: ir.Value, params: AffineParams) -> None:
    name = str(value.name)
    uses = tuple(value.uses())
    scale = add_initializer_(model, f"{name}::scale", params.scale)
    zero_point = add_initializer_(model, f"{name}::zero_point", params.zero_point)
    q = ir.node("QuantizeLinear", [value, scale, zero_point], name=f"{name}::Q")
    q.outputs[0].name = f"{name}::q"
    q.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(params.zero_point.dtype))
    q.outputs[0].shape = value.shape
    dq = ir.node("DequantizeLinear", [q.outputs[0], scale, zero_point], name=f"{name}::DQ")
    dq.outputs[0].name = f"{name}::dq"
    dq.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    dq.outputs[0].shape = value.shape
    producer = value.producer()
    if producer is None:
        model.graph.insert_before(model.graph[0], [q, dq])
    else:
        model.graph.insert_after(producer, [q, dq])
    for use in uses:
        use.node.replace_input_with(use.idx, dq.outputs[0])


def _replace_input_(
    model: ir.Model,
    node: ir.Node,
    position: int,
    name: str,
    values: Integers,
    scale: Floats,
    axis: int,
) -> None:
    """Feed input `position` of `node` from DQ(values); a second call for the same name replaces the integers."""
    initializers = model.graph.initializers
    for suffix, array in (("q", values), ("scale", scale), ("zero_point", np.zeros(scale.shape, values.dtype))):
        full = f"{name}::{suffix}"
        if full in initializers:
            initializers[full].const_value = ir.tensor(array, name=full)
        else:
            add_initializer_(model, full, array)
    current = node.inputs[position]
    if current is not None and current.name == f"{name}::dq":
        return
    inputs = [initializers[f"{name}::{suffix}"] for suffix in ("q", "scale", "zero_point")]
    dq = ir.node("DequantizeLinear", inputs, attributes={"axis": axis}, name=f"{name}::DQ")
    dq.outputs[0].name = f"{name}::dq"
    dq.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    dq.outputs[0].shape = ir.Shape(values.shape)
    model.graph.insert_before(node, [dq])
    node.replace_input_with(position, dq.outputs[0])

"""HardSwish and HardSigmoid on integers: the clip is where the Q saturates.

    hard_sigmoid(x) = clip(a x + b, 0, 1)       hard_swish(x) = x * hard_sigmoid(x)

    a x + b == a (x + b / a)                    so x + b / a is added on a grid 1 / a times as wide as the result's,
    Q saturates                                 whose ends are those of the clip,
    DQ(Q(t, scale / a), scale) == a t           and read on the result's grid

So runtimes without a kernel for them run an integer Add, and an integer Mul for HardSwish, in place of three passes
over floats. The numbers differ from those in float by what 8 bits of the gate round.
"""

import numpy as np
import onnx_ir as ir

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.insert import add_initializer_
from edgeft.quantize.placement import Placement
from edgeft.quantize.plan import Plan, constant

_ALPHA, _BETA = 0.2, 0.5
"""Of HardSigmoid in ONNX, where a node does not say."""
_SWISH = (1 / 6, 0.5)


def gate_integers_(model: ir.Model, plan: Plan, placement: Placement) -> tuple[str, ...]:
    """Build every operator that `plan` makes integer by `Placement.gates` out of others; return their names.

    Args:
        model: a Q/DQ graph whose activations have their pairs; changed in place.
        plan: made from this very model object.
        placement: of the target.
    """
    built = []
    for op in plan.ops:
        if op.rule not in placement.gates:
            continue
        _BUILD[op.node.op_type](model, op.node)
        model.graph.remove(op.node, safe=True)
        built.append(op.name)
    return tuple(built)


def _build_swish_(model: ir.Model, node: ir.Node) -> None:
    """Put x * gate(x) for `node`; the gate has a grid of its own, [0, 1] in as many steps as its type has."""
    x, y = node.inputs[0], node.outputs[0]
    zero_point = _zero_point(x)
    info = np.iinfo(zero_point.dtype)
    least = np.asarray(info.min, zero_point.dtype)
    alpha, beta = _SWISH
    moved = _shifted_(model, node, beta / alpha)
    steps = info.max - info.min
    grids = {"wide": 1 / alpha / steps, "own": 1 / steps}
    wide, own = (
        add_initializer_(model, f"{y.name}::gate::{name}", np.asarray(grids[name], np.float32)) for name in grids
    )
    zero = add_initializer_(model, f"{y.name}::gate::zero_point", least)
    q = _made("QuantizeLinear", [moved, wide, zero], f"{y.name}::gate::q", y.shape, ir.DataType.from_numpy(least.dtype))
    gate = _made("DequantizeLinear", [q.outputs[0], own, zero], f"{y.name}::gate", y.shape)
    product = _made("Mul", [x, gate.outputs[0]], f"{y.name}::product", y.shape)
    model.graph.insert_before(node, [q, gate, product])
    y.replace_all_uses_with(product.outputs[0])


def _build_sigmoid_(model: ir.Model, node: ir.Node) -> None:
    """Put x + beta / alpha for `node`, and let its Q, whose range is within [0, 1], do the rest on a wider grid."""
    y = node.outputs[0]
    alpha, beta = node.attributes.get_float("alpha", _ALPHA), node.attributes.get_float("beta", _BETA)
    (q,) = y.consumers()
    scale = np.asarray(constant(q.inputs[1]))
    q.replace_input_with(0, _shifted_(model, node, beta / alpha))
    q.replace_input_with(1, add_initializer_(model, f"{y.name}::wide", np.asarray(scale / alpha, np.float32)))


def _shifted_(model: ir.Model, node: ir.Node, by: float) -> ir.Value:
    """Return what `node` reads plus `by`, a constant that is an integer with a scale, as integer kernels take it."""
    x, name = node.inputs[0], node.outputs[0].name
    dtype = _zero_point(x).dtype
    one, zero = (add_initializer_(model, f"{name}::{what}", np.asarray(value, dtype)) for what, value in
                 (("one", 1), ("zero", 0)))  # fmt: skip
    step = add_initializer_(model, f"{name}::shift::scale", np.asarray(by, np.float32))
    shift = _made("DequantizeLinear", [one, step, zero], f"{name}::shift", ir.Shape([]))
    moved = _made("Add", [x, shift.outputs[0]], f"{name}::shifted", node.outputs[0].shape)
    model.graph.insert_before(node, [shift, moved])
    return moved.outputs[0]


def _zero_point(value: ir.Value | None) -> np.ndarray:
    """Return the zero point of the DQ that `value` comes from."""
    dq = None if value is None else value.producer()
    found = constant(dq.inputs[2]) if dq is not None and dq.op_type == "DequantizeLinear" else None
    if found is None:
        raise QuantizationError(f"tensor {None if value is None else value.name!r} is not dequantized from constants")
    return found


def _made(
    op_type: str,
    inputs: list[ir.Value | None],
    name: str,
    shape: ir.Shape | None,
    dtype: ir.DataType = ir.DataType.FLOAT,
) -> ir.Node:
    node = ir.node(op_type, inputs, name=name)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = f"{name}::y", shape, ir.TensorType(dtype)
    return node


_BUILD = {"HardSwish": _build_swish_, "HardSigmoid": _build_sigmoid_}

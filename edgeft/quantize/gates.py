"""HardSwish and HardSigmoid on integers: the clip is where the Q saturates.

    hard_sigmoid(x) = clip(a x + b, 0, 1)       hard_swish(x) = x * hard_sigmoid(x)

    a x + b == a (x + b / a)                    so x + b / a is added on a grid 1 / a times as wide as the gate's,
    Q saturates                                 whose ends are those of the clip,
    DQ(Q(t, scale / a), scale) == a t           and read on the gate's own grid, [0, 1]

So runtimes without a kernel for them run an integer Add, and an integer Mul for HardSwish, in place of three passes
over floats. The numbers differ from those in float by what 8 bits of the gate round.
"""

import numpy as np
import onnx_ir as ir

from edgeft.graph.passes.surgery import typed_node
from edgeft.quantize.affine import AffineParams, QuantizationError
from edgeft.quantize.insert import add_initializer_, input_params
from edgeft.quantize.placement import IntegerType, Placement
from edgeft.quantize.plan import Plan, gate_factors

GATES = frozenset({"HardSwish", "HardSigmoid"})
WIDE = "::gate::wide"
"""How the name of the scale ends that x + b / a is added on."""


def gate_params(plan: Plan, placement: Placement) -> dict[str, AffineParams]:
    """Return the grid, [0, 1], of what every HardSigmoid makes that `plan` builds, whatever range calibration saw."""
    built = (op for op in plan.ops if op.node.op_type in placement.gates and op.node.op_type == "HardSigmoid")
    return {str(op.node.outputs[0].name): _unit(placement.activation.dtype) for op in built}


def gate_integers_(model: ir.Model, plan: Plan, placement: Placement) -> tuple[str, ...]:
    """Build every operator that `plan` makes integer by `Placement.gates` out of others; return their names.

    What it made keeps its name: HardSwish's product has a Q of its own behind it, a HardSigmoid's gate has none.

    Args:
        model: a Q/DQ graph whose activations have their pairs; changed in place.
        plan: made from this very model object.
        placement: of the target.
    """
    built = []
    for op in plan.ops:
        if op.node.op_type not in placement.gates:
            continue
        x, y = op.node.inputs[0], op.node.outputs[0]
        gate = _gate_(model, op.node)
        if op.node.op_type == "HardSwish":
            last = typed_node(f"{y.name}::product", "Mul", [x, gate.outputs[0]], ir.DataType.FLOAT, y.shape)
            model.graph.insert_before(op.node, [last])
            y.replace_all_uses_with(last.outputs[0])
        else:
            last = gate
            (q,) = y.consumers()
            (dq,) = q.outputs[0].consumers()
            dq.outputs[0].replace_all_uses_with(gate.outputs[0])
            model.graph.remove([dq, q], safe=True)
        name = y.name
        model.graph.remove(op.node, safe=True)
        last.outputs[0].name = name
        built.append(op.name)
    return tuple(built)


def _gate_(model: ir.Model, node: ir.Node) -> ir.Node:
    """Put the integers of clip(a x + b, 0, 1) ahead of `node`, which reads x; return their DQ."""
    x, name, shape = node.inputs[0], node.outputs[0].name, node.outputs[0].shape
    if x is None:
        raise QuantizationError(f"{node.op_type} {node.name!r} has no input")
    alpha, beta = gate_factors(node)
    unit = _unit(input_params(x).dtype)
    arrays = {
        "one": np.ones((), unit.zero_point.dtype),
        "zero": np.zeros((), unit.zero_point.dtype),
        "shift": np.asarray(beta / alpha, np.float32),
        "wide": np.asarray(unit.scale / alpha, np.float32),
        "scale": unit.scale,
        "zero_point": unit.zero_point,
    }
    given = {what: add_initializer_(model, f"{name}::gate::{what}", array) for what, array in arrays.items()}
    real, kind = ir.DataType.FLOAT, ir.DataType.from_numpy(unit.zero_point.dtype)
    constant = [given["one"], given["shift"], given["zero"]]
    shift = typed_node(f"{name}::shift", "DequantizeLinear", constant, real, ir.Shape([]))
    moved = typed_node(f"{name}::shifted", "Add", [x, shift.outputs[0]], real, shape)
    wide = [moved.outputs[0], given["wide"], given["zero_point"]]
    q = typed_node(f"{name}::gate::q", "QuantizeLinear", wide, kind, shape)
    own = [q.outputs[0], given["scale"], given["zero_point"]]
    gate = typed_node(f"{name}::gate", "DequantizeLinear", own, real, shape)
    model.graph.insert_before(node, [shift, moved, q, gate])
    return gate


def _unit(dtype: IntegerType) -> AffineParams:
    """Return the grid whose integers stand for 0 to 1, both ends included."""
    info = np.iinfo(dtype)
    scale = np.asarray(1 / (info.max - info.min), np.float32)
    return AffineParams(scale, np.asarray(info.min, info.dtype), dtype)

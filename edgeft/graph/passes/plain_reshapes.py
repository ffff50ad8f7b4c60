"""Give a reshape whose target is computed from the input's own sizes a constant target.

    Reshape(x [N, L, D], Concat(N, L, H, D / H))  =  Reshape(x, [0, 0, H, D / H])

0 keeps the input's size at that place (so `allowzero` goes, too), -1 stands for the one size that is left. What
computed the sizes becomes dead.
"""

import numpy as np
import onnx_ir as ir

from edgeft.graph.opset import DEFAULT_DOMAINS
from edgeft.graph.passes.report import PassReport, Refusal


def plain_reshapes_(model: ir.Model) -> PassReport:
    """Make the target of every Reshape in the main graph of `model` constant where sizes are known by name."""
    changed, refused = [], []
    for node in tuple(model.graph):
        if node.op_type != "Reshape" or node.domain not in DEFAULT_DOMAINS:
            continue
        if node.inputs[1] is None or ir.convenience.get_const_tensor(node.inputs[1]) is not None:
            continue
        name = node.name or node.op_type
        target = _target(node)
        if target is None:
            refused.append(Refusal(name, f"{_shape(node.inputs[0])} to {_shape(node.outputs[0])}: two sizes are open"))
            continue
        constant = ir.val(f"{name}::shape", const_value=ir.tensor(np.asarray(target, np.int64), name=f"{name}::shape"))
        model.graph.register_initializer(constant)
        node.replace_input_with(1, constant)
        node.attributes.pop("allowzero", None)
        changed.append(name)
    return PassReport("plain_reshapes", tuple(changed), tuple(refused))


def _target(node: ir.Node) -> tuple[int, ...] | None:
    """Return the constant target, or None where more than one size cannot be told from the input's."""
    x, y = node.inputs[0], node.outputs[0]
    if x is None or x.shape is None or y.shape is None:
        return None
    target = []
    for place, size in enumerate(y.shape):
        if isinstance(size, int):
            target.append(size)
        elif size.value is not None and place < len(x.shape) and x.shape[place] == size:
            target.append(0)
        else:
            target.append(-1)
    return tuple(target) if target.count(-1) <= 1 else None


def _shape(value: ir.Value | None) -> str:
    return "unknown" if value is None else str(value.shape)

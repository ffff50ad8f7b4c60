"""Embedding tables in 8 bits: one scale for each row, so that a rare word loses no more than a frequent one.

    E[i] = q[i] s[i]      q int8 in -127..127, s[i] = max |E[i]| / 127

    Gather(E, ids)   becomes   Mul(Cast(Gather(q, ids)), Gather(s, ids))

Only the rows of the text at hand are turned back to float, so it costs next to nothing; the table, which is most of a
small encoder's file, takes a quarter.
"""

import numpy as np
import onnx_ir as ir

from edgeft.graph.passes.surgery import replace_
from edgeft.quantize.affine import SMALLEST_SCALE
from edgeft.quantize.insert import add_initializer_

WORTH = 1 << 16
"""Elements from which a table is worth it: position and type embeddings are small, and added to every word."""
_RANK = 2
_LIMIT = 127


def quantize_embeddings_(model: ir.Model) -> tuple[str, ...]:
    """Store large tables that are read by Gather alone in 8 bits; return the names of the operators that read them."""
    changed = []
    for node in tuple(model.graph):
        table = _table(node)
        if table is None:
            continue
        data, ids = node.inputs[0], node.inputs[1]
        scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / _LIMIT, SMALLEST_SCALE).astype(np.float32)
        integers = np.clip(np.rint(table / scale.astype(np.float64)), -_LIMIT, _LIMIT).astype(np.int8)
        prefix = str(data.name) if data is not None else str(node.name)
        rows = ir.node("Gather", [add_initializer_(model, f"{prefix}::q", integers), ids], {"axis": 0})
        steps = ir.node("Gather", [add_initializer_(model, f"{prefix}::scale", scale), ids], {"axis": 0})
        real = ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT})
        last = ir.node("Mul", [real.outputs[0], steps.outputs[0]], name=node.name)
        for part, suffix in ((rows, "rows"), (steps, "steps"), (real, "real")):
            part.name = f"{node.name}::{suffix}"
            part.outputs[0].name = f"{node.name}::{suffix}::y"
        last.outputs[0].shape, last.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        replace_(node, [rows, steps, real, last])
        if data is not None and data.name is not None and not data.uses():
            del model.graph.initializers[data.name]
        changed.append(str(last.name))
    return tuple(changed)


def _table(node: ir.Node) -> np.ndarray | None:
    """Return the float table [V, D] that `node` looks rows up in, where it is worth storing in 8 bits."""
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
        return None
    data = node.inputs[0]
    if data is None or not data.is_initializer() or data.is_graph_output() or len(data.uses()) != 1:
        return None
    tensor = ir.convenience.get_const_tensor(data)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != _RANK or tensor.size < WORTH:
        return None
    if tensor.shape[1] == 1:  # one number a row: the scales of such a table
        return None
    found: np.ndarray = tensor.numpy()
    return found if np.isfinite(found).all() else None  # a mask holds minus infinity

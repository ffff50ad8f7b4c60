"""Weight scales that float16 holds, by rounding the weights of near-dead channels once more.

    s' = the next float16 at or above s        q' = round(q s / s')        |q' s' - q s| <= s' / 2

A folded BatchNorm leaves channels whose weights are a millionth of their neighbours'. Below 2^-14 float16 has fewer
bits, below 2^-24 it is 0, and a layer kept in float32 for such a channel has a Cast behind its input's DQ, so that
TensorRT would no longer see a quantized layer. What is lost is at most half of 6e-8 a weight, or half a step as ever.
A layer of which no channel reaches 2^-20 is left: there these weights are all there is.
"""

from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgeft.graph.passes.report import PassReport
from edgeft.quantize.plan import constant

NORMAL: Final = 2.0**-14
"""From here on float16 has all of its 11 bits."""
ENOUGH: Final = 2.0**-20
_Half = NDArray[np.float16]


def hold_weight_scales_(model: ir.Model) -> PassReport:
    """Give every int8 weight of `model` scales that float16 holds; changes only channels whose scale is below 2^-14.

    Args:
        model: a Q/DQ graph; changed in place.

    Returns:
        The DequantizeLinear that changed.
    """
    changed = tuple(str(node.name or node.outputs[0].name) for node in model.graph if _hold_(node, model.graph))
    return PassReport("weight_scales", changed)


def next_half(values: NDArray[np.floating]) -> _Half:
    """Return the smallest float16 at or above each of `values`, which are positive."""
    near = values.astype(np.float16)
    up = np.nextafter(near, np.float16(np.inf))
    return np.where(near.astype(np.float64) < values.astype(np.float64), up, near).astype(np.float16)


def _hold_(node: ir.Node, graph: ir.Graph) -> bool:
    weight, scale = (
        (constant(value) for value in node.inputs[:2]) if node.op_type == "DequantizeLinear" else (None, None)
    )
    if weight is None or scale is None or weight.dtype != np.int8:
        return False
    small = (scale > 0) & (scale < NORMAL)
    if not small.any() or scale.max() < ENOUGH:
        return False
    held = np.where(small, next_half(np.maximum(scale, np.finfo(np.float16).smallest_subnormal)), scale)
    held = held.astype(scale.dtype)
    if (held == scale).all():
        return False
    shape = [1] * weight.ndim
    if scale.ndim:
        shape[node.attributes.get_int("axis", 1)] = scale.size
    factor = (scale.astype(np.float64) / held.astype(np.float64)).reshape(shape)
    for index, array in ((0, np.rint(weight * factor).astype(np.int8)), (1, held)):
        node.replace_input_with(index, _written(graph, f"{node.outputs[0].name}::{index}::held", array))
    return True


def _written(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    made = ir.Value(
        name=name,
        const_value=ir.tensor(array, name=name),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        shape=ir.Shape(array.shape),
    )
    graph.register_initializer(made)
    return made

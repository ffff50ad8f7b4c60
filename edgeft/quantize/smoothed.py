"""SmoothQuant in a float graph: what matrix products read is divided by s, by channel, and their weights take s.

    W x == (W diag(s)) (x / s)

For targets that fuse a multiplication into what makes the tensor, so that it costs no pass of its own.
"""

import numpy as np
import onnx_ir as ir

from edgeft.core.events import EventSink, ignore
from edgeft.quantize.affine import Floats
from edgeft.quantize.calibration import Execution
from edgeft.quantize.insert import add_initializer_
from edgeft.quantize.plan import Plan, constant
from edgeft.quantize.products import Product, input_statistics
from edgeft.quantize.rows import Rows
from edgeft.quantize.smooth import WORTH_A_MUL, smoothing

_PRODUCTS = ("MatMul", "Gemm")


def smooth_(model: ir.Model, plan: Plan, rows: Rows, execution: Execution, emit: EventSink = ignore) -> tuple[str, ...]:
    """Smooth the inputs of the matrix products that `plan` makes integer; return their names.

    Args:
        model: a float graph, changed in place; it computes what it did.
        plan: made from this very model object; it is to be made again afterwards.
        rows: inputs that tell what flows there.
        execution: threads and batch.
        emit: where progress goes.

    Raises:
        QuantizationError: an activation is NaN or infinite.
    """
    readers: dict[str, list[Product]] = {}
    for op in plan.weighted:
        weight = constant(op.node.inputs[op.rule.weight or 0])
        if op.node.op_type in _PRODUCTS and weight is not None:
            product = Product(op.node, op.rule, weight)
            readers.setdefault(str(product.input.name), []).append(product)
    if not readers:
        return ()
    smoothed = []
    found = input_statistics(ir.to_proto(model), list(readers), rows, len(rows), execution, emit)
    for tensor, statistics in found.items():
        own = readers[tensor]
        matrix = np.concatenate([product.matrix[0] for product in own])
        s = smoothing(matrix, np.diagonal(statistics.moment), statistics.low, statistics.high, least_gain=WORTH_A_MUL)
        if (s == 1).all():
            continue
        source = divided_(model, own[0].input, own[0].node, s)
        for product in own:
            product.node.replace_input_with(0, source)
            _scale_(model, product, s)
        smoothed.append(tensor)
    return tuple(smoothed)


def divided_(model: ir.Model, value: ir.Value, before: ir.Node, s: Floats) -> ir.Value:
    """Return value / s, float32 [..., K] by s [K], computed ahead of `before`; `value` itself where s is 1."""
    if (s == 1).all():
        return value
    inverse = add_initializer_(model, f"{value.name}::smooth", (1 / s).astype(np.float32))
    node = ir.node("Mul", [value, inverse], name=f"{value.name}::smoothed")
    node.outputs[0].name = f"{value.name}::smoothed::y"
    node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
    model.graph.insert_before(before, node)
    return node.outputs[0]


def _scale_(model: ir.Model, product: Product, s: Floats) -> None:
    """Multiply the rows of a weight [K, O], or the columns of a transposed one [O, K], by s [K]."""
    transposed = bool(product.node.attributes.get_int("transB", 0))
    weight = (product.weight * (s if transposed else s[:, None])).astype(np.float32)
    index = product.rule.weight or 0
    name = f"{product.node.outputs[0].name}::smoothed_weight"
    product.node.replace_input_with(index, add_initializer_(model, name, weight))

"""Write the normalisation of integer pixels in float operators, for targets whose DequantizeLinear takes no uint8.

    DequantizeLinear(x, scale, zero_point)  =  Mul(Sub(Cast(x), zero_point), scale)      x computed, not constant

Equal bit for bit: the difference of two 8-bit integers is exact in float32, and both multiply it once.
"""

import numpy as np
import onnx_ir as ir

from edgeft.graph.passes.report import PassReport, Refusal
from edgeft.graph.passes.surgery import replace_


def plain_pixels_(model: ir.Model) -> PassReport:
    """Replace every DequantizeLinear of a computed uint8 tensor that no QuantizeLinear made, in the main graph."""
    changed, refused = [], []
    for node in tuple(model.graph):
        x = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if x is None or x.dtype != ir.DataType.UINT8 or x.is_initializer() or _is_quantized(x):
            continue
        name = node.name or node.op_type
        given = node.inputs[2] if node.inputs[2:] else None
        scale, zero = _scalar(node.inputs[1]), np.uint8(0) if given is None else _scalar(given)
        if scale is None or zero is None:
            refused.append(Refusal(name, "its scale or zero point is no constant scalar"))
            continue
        changed.append(name)
        _replace_(model, node, x, scale, zero)
    return PassReport("plain_pixels", tuple(changed), tuple(refused))


def _is_quantized(value: ir.Value) -> bool:
    """Return whether a QuantizeLinear made `value`, perhaps past operators that only move it."""
    producer = value.producer()
    while producer is not None and producer.op_type in {"Transpose", "Reshape", "Flatten"} and producer.inputs[0]:
        producer = producer.inputs[0].producer()
    return producer is not None and producer.op_type == "QuantizeLinear"


def _scalar(value: ir.Value | None) -> np.ndarray | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return tensor.numpy() if tensor is not None and tensor.size == 1 else None


def _replace_(model: ir.Model, node: ir.Node, x: ir.Value, scale: np.ndarray, zero: np.ndarray | np.generic) -> None:
    name, steps = node.name or str(node.outputs[0].name), []
    value = x
    for op_type, constant in (("Cast", None), ("Sub", zero), ("Mul", scale)):
        inputs = [value]
        if constant is not None:
            array = ir.tensor(constant.astype(np.float32).reshape(()), name=f"{name}/{op_type}.constant")
            inputs.append(ir.val(str(array.name), const_value=array))
            model.graph.register_initializer(inputs[-1])
        step = ir.node(op_type, inputs, {"to": ir.DataType.FLOAT} if constant is None else {}, name=f"{name}/{op_type}")
        value = step.outputs[0]
        value.name, value.shape, value.type = f"{name}/{op_type}", x.shape, ir.TensorType(ir.DataType.FLOAT)
        steps.append(step)
    replace_(node, steps)

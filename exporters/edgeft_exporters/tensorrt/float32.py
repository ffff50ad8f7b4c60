"""Which operators of a Q/DQ graph stay float32 where the others become float16, and why.

A strongly typed network computes in the file's own types, so this is decided here and not by the builder. Integers keep
8 bits, so float16's 11 cost nothing where a value is in its range. What is not (half_range.py), or sums, squares or
exponentiates, stays float32:

    pixels -> Cast, Sub, Mul -> float16 ... -> the operator that makes the logits -> Div, Softmax -> scores

The Softmax between two products becomes float16: a Cast on either side would cut the attention that TensorRT fuses.
"""

from dataclasses import dataclass
from typing import Final

import onnx
import onnx_ir as ir

from edgeft.quantize.plan import constant
from edgeft_exporters.tensorrt.half_range import beyond_half, out_of_range

PAIR: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
_SILENT = frozenset({"Constant", "Cast", *PAIR})
_PIXELS = frozenset({"Cast", "Sub", "Mul", "Div", "Add", "Transpose"})
_WIDE = frozenset(
    {
        *("LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization", "LpNormalization"),
        *("ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "Pow", "Sqrt", "Exp", "Log", "LogSoftmax"),
    }
)
_MAKES = frozenset({"ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform", "Range"})


@dataclass(frozen=True, slots=True)
class Stay:
    """Why an operator stays float32.

    Args:
        reason: for the report.
        by_numbers: whether its weights or its calibration forbid float16, not its type or its place.
    """

    reason: str
    by_numbers: bool = False


def stay_float32(model: ir.Model) -> dict[ir.Node, Stay]:
    """Return the operators that stay float32, each with the reason; a Q or DQ is named where its scale is the reason.

    Args:
        model: a Q/DQ graph with known types.
    """
    version = model.graph.opset_imports.get("", 0)
    found: dict[ir.Node, Stay] = {}
    after: set[ir.Value] = set()
    for node in model.graph:
        reason = _reason(node, version, after)
        if reason is not None:
            found[node] = reason
        if _is_about_logits(node, after):
            after.update(node.outputs)
    for node in model.graph:
        if node.op_type == "QuantizeLinear":
            found = {**{each: Stay(why, by_numbers=True) for each, why in out_of_range(node)}, **found}
    return found


def _reason(node: ir.Node, version: int, after: set[ir.Value]) -> Stay | None:
    if node.op_type in _SILENT:
        return None
    by_place = _by_place(node, after) or _by_type(node, version)
    if by_place is not None:
        return Stay(by_place)
    by_numbers = beyond_half(node)
    return None if by_numbers is None else Stay(by_numbers, by_numbers=True)


def _by_place(node: ir.Node, after: set[ir.Value]) -> str | None:
    """Return why `node` stays float32 by what it is and where it stands."""
    if _is_about_logits(node, after):
        return "it makes an output of the graph, or the logits, or works on them"
    if _is_on_pixels(node):
        return "it normalises the pixels, which Q rounds next"
    if node.op_type in _WIDE or (node.op_type == "Softmax" and not _is_in_attention(node)):
        return "it sums, squares or exponentiates"
    return "it makes float32 by its definition" if node.op_type in _MAKES else None


def _is_about_logits(node: ir.Node, after: set[ir.Value]) -> bool:
    makes = any(value.name == "logits" or value.is_graph_output() for value in node.outputs)
    return makes or any(value in after for value in node.inputs if value is not None)


def _is_on_pixels(node: ir.Node) -> bool:
    """Return whether only pixel arithmetic lies between the graph's inputs and `node`."""
    if node.op_type not in _PIXELS:
        return False
    makers = [value.producer() for value in node.inputs if value is not None and constant(value) is None]
    return all(maker is None or _is_on_pixels(maker) for maker in makers)


def _is_in_attention(node: ir.Node) -> bool:
    readers = node.outputs[0].consumers()
    return bool(readers) and all(reader.op_type == "MatMul" for reader in readers)


def _by_type(node: ir.Node, version: int) -> str | None:
    """Return why float16 cannot stand where `node` reads or makes float32."""
    if any(
        attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS} for attribute in node.attributes.values()
    ):
        return "it holds a graph of its own"
    try:
        schema = onnx.defs.get_schema(node.op_type, node.version or version, node.domain)
    except onnx.defs.SchemaError:
        return "it is no operator of ONNX's"
    for values, formal in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        for index, value in enumerate(values):
            allowed = formal[min(index, len(formal) - 1)].types
            if value is not None and value.dtype == ir.DataType.FLOAT and "tensor(float16)" not in allowed:
                return "it takes no float16"
    return None

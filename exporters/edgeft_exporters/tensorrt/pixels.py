"""Pixels as TensorRT takes them: uint8 is a type of inputs alone, and what reads it is a Cast.

    pixels uint8 -> Transpose -> DequantizeLinear   =   pixels uint8 -> Cast -> Transpose -> Sub -> Mul

Equal bit for bit: a Transpose moves values, whatever their type. Source: tensorrt.DataType, UINT8.
"""

from collections.abc import Sequence

import onnx_ir as ir

from edgeft.graph.passes.plain_pixels import plain_pixels_
from edgeft.graph.passes.report import PassReport, Refusal


def lower_pixels_(model: ir.Model) -> PassReport:
    """Let a Cast be the first to read each uint8 input of `model`; a second run changes nothing."""
    plain = plain_pixels_(model)
    changed, refused = [], []
    for node in tuple(model.graph):
        x = node.inputs[0] if node.op_type == "Transpose" else None
        if x is None or x.dtype != ir.DataType.UINT8 or not x.is_graph_input():
            continue
        readers, name = node.outputs[0].consumers(), str(node.name or node.outputs[0].name)
        if not readers or any(not _is_float_cast(reader) for reader in readers):
            refused.append(Refusal(name, "its integers are read by another operator than a Cast to float32"))
            continue
        _cast_first_(model, node, x, readers)
        changed.append(name)
    return PassReport("lower_pixels", (*plain.changed, *changed), (*plain.refused, *refused))


def _is_float_cast(node: ir.Node) -> bool:
    to = node.attributes.get_int("to", 0)
    return node.op_type == "Cast" and to == ir.DataType.FLOAT and not node.outputs[0].is_graph_output()


def _cast_first_(model: ir.Model, transpose: ir.Node, x: ir.Value, casts: Sequence[ir.Node]) -> None:
    cast = ir.node("Cast", [x], {"to": ir.DataType.FLOAT}, name=f"{x.name}::float")
    made, moved = cast.outputs[0], transpose.outputs[0]
    made.name, made.shape, made.type = f"{x.name}::float", x.shape, ir.TensorType(ir.DataType.FLOAT)
    model.graph.insert_before(transpose, [cast])
    transpose.replace_input_with(0, made)
    moved.type = ir.TensorType(ir.DataType.FLOAT)
    for old in casts:
        for use in tuple(old.outputs[0].uses()):
            use.node.replace_input_with(use.idx, moved)
        model.graph.remove(old, safe=True)

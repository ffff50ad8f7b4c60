"""Keep in float what was left in float: a runtime may round such weights by itself, per tensor and to full range.

    DQ -> Conv(float weight) -> [Relu] -> Q      onnxruntime makes an integer Conv of it (WeightBiasQuantization)
    DQ -> MaxPool -> Conv -> Relu -> Transpose -> Q     likewise: it moves DQ and Q up to the Conv (QDQPropagation)
    DQ -> Conv -> LeakyRelu(alpha 1) -> ... -> Q     stays float; LeakyRelu(alpha 1) is x, and the kernel takes it along

    float -> MaxPool -> Q                        becomes Q -> MaxPool (QDQPropagation), whose integer kernel is slow
                                                 where nothing around it is in the integer kernels' layout

The file itself is made proof, not only the session that edgeft opens: other programs load it, too.
"""

import onnx_ir as ir

from edgeft.quantize.placement import Placement
from edgeft.quantize.plan import constant


def hold_floats_(model: ir.Model, placement: Placement) -> tuple[str, ...]:
    """Separate from its Q every operator that `placement`'s target would round or move; return their names."""
    held = []
    for node in tuple(model.graph):
        rounded = node.op_type in placement.rounds_floats and _is_float_between_integers(node, placement)
        if rounded or (node.op_type in placement.swapped_with_q and _is_float_before_q(node)):
            _separate_(model, node)
            held.append(str(node.name or node.outputs[0].name))
    return tuple(held)


def _is_float_between_integers(node: ir.Node, placement: Placement) -> bool:
    before = _producer(node)
    while before is not None and before.op_type in placement.carries_q:
        before = _producer(before)
    if before is None or before.op_type != "DequantizeLinear" or constant(node.inputs[1]) is None:
        return False
    readers, over = list(node.outputs[0].consumers()), {*placement.absorbed, *placement.carries_q}
    while readers:
        reader = readers.pop()
        if reader.op_type == "QuantizeLinear":
            return True
        if reader.op_type in over:
            readers += reader.outputs[0].consumers()
    return False


def _is_float_before_q(node: ir.Node) -> bool:
    before = _producer(node)
    fed = before is not None and before.op_type == "DequantizeLinear"
    return not fed and any(reader.op_type == "QuantizeLinear" for reader in node.outputs[0].consumers())


def _producer(node: ir.Node) -> ir.Node | None:
    """Return what makes the first input of `node`."""
    return None if not node.inputs or node.inputs[0] is None else node.inputs[0].producer()


def _separate_(model: ir.Model, node: ir.Node) -> None:
    value = node.outputs[0]
    uses = tuple(value.uses())
    same = ir.node("LeakyRelu", [value], {"alpha": 1.0}, name=f"{value.name}::float")
    same.outputs[0].name, same.outputs[0].shape, same.outputs[0].type = f"{value.name}::float", value.shape, value.type
    model.graph.insert_after(node, [same])
    for use in uses:
        use.node.replace_input_with(use.idx, same.outputs[0])

"""How passes replace a node, and read what they need to know about it."""

from collections.abc import Sequence

import onnx_ir as ir

from edgeft.core.errors import EdgeftError


def typed_node(
    name: str,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    dtype: ir.DataType,
    shape: ir.Shape | None,
    **attributes: int | Sequence[int],
) -> ir.Node:
    """Return a node whose one output has its name, this type and this shape."""
    node = ir.node(op_type, inputs, attributes, name=name)
    output = node.outputs[0]
    output.name, output.type, output.shape = name, ir.TensorType(dtype), shape
    return node


def replace_(old: ir.Node, new: Sequence[ir.Node]) -> None:
    """Put the nodes `new` in the place of `old`; the last one's first output takes over `old`'s name and uses."""
    if old.graph is None:
        raise EdgeftError(f"node {old.name!r} belongs to no graph")
    was, becomes = old.outputs[0], new[-1].outputs[0]
    becomes.name = was.name
    ir.convenience.replace_nodes_and_values(old.graph, old, [old], new, [was], [becomes])


def constant_ints(node: ir.Node, attribute: str, index: int) -> tuple[int, ...] | None:
    """Return integers kept in `attribute` (older opsets) or in the constant input `index` (newer); None if unknown."""
    if attribute in node.attributes:
        return tuple(node.attributes[attribute].as_ints())
    value = node.inputs[index] if index < len(node.inputs) else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tuple(int(number) for number in tensor.numpy().ravel())

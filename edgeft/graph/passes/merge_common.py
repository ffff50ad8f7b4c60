"""Compute once what a graph computes twice.

    y1 = f(x), y2 = f(x)  =  y1 = f(x), y2 = y1            for the same f, attributes and inputs

Outputs of the graph keep a node of their own (onnx_ir's pass renames them, or puts an Identity there, and it merges
Dropouts, which draw anew each time).
"""

from collections.abc import Hashable

import onnx_ir as ir

from edgeft.graph.branches import holds_graphs
from edgeft.graph.opset import DEFAULT_DOMAINS
from edgeft.graph.passes.report import PassReport, Refusal

_DRAW = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_STAND_ALONE = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Runtimes fuse these with the one operator behind or before them."""


def merge_common_(model: ir.Model) -> PassReport:
    """Merge the nodes of the main graph of `model`, in topological order, that compute the same from the same."""
    first: dict[Hashable, ir.Node] = {}
    changed, refused = [], []
    for node in tuple(model.graph):
        key = _key(node)
        if key is None:
            continue
        other = first.setdefault(key, node)
        if other is node:
            continue
        if any(value.is_graph_output() for value in node.outputs):
            refused.append(Refusal(node.name or node.op_type, "it makes an output of the graph"))
            continue
        ir.convenience.replace_all_uses_with(node.outputs, other.outputs)
        model.graph.remove(node, safe=True)
        changed.append(node.name or node.op_type)
    return PassReport("merge_common", tuple(changed), tuple(refused))


def _key(node: ir.Node) -> Hashable | None:
    """Return what two nodes share that compute the same, or None where `node` stands for itself."""
    if node.domain not in DEFAULT_DOMAINS or node.op_type in _DRAW | _STAND_ALONE:
        return None
    if holds_graphs(node):
        return None
    attributes = {
        name: ir.serde.serialize_attribute(attribute).SerializeToString() for name, attribute in node.attributes.items()
    }
    inputs = tuple(id(value) for value in node.inputs)
    return node.op_type, len(node.outputs), inputs, tuple(sorted(attributes.items()))

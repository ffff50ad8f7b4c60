"""Remove identities.

    Identity(x)  =  x

An output of the graph keeps its name, so what is computed takes it over. An identity that gives a second name to an
input, a weight or another output stays: onnx_ir's own pass would lose one of two outputs that are the same tensor.
"""

import onnx_ir as ir

from edgeft.graph.opset import DEFAULT_DOMAINS
from edgeft.graph.passes.report import PassReport, Refusal


def remove_identities_(model: ir.Model) -> PassReport:
    """Remove every Identity of `model`, subgraphs included, that gives a tensor no second name which is needed."""
    changed, refused = [], []
    for node in tuple(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.op_type != "Identity" or node.domain not in DEFAULT_DOMAINS:
            continue
        (x,), (y,), name = node.inputs, node.outputs, node.name or node.op_type
        if x is None or node.graph is None:
            continue
        if y.is_graph_output() and (reason := _refuse(x, node.graph)):
            refused.append(Refusal(name, reason))
            continue
        if y.is_graph_output():
            x.name = y.name
        x.shape, x.type = x.shape if x.shape is not None else y.shape, x.type or y.type
        ir.convenience.replace_all_uses_with(y, x, replace_graph_outputs=True)
        node.graph.remove(node, safe=True)
        changed.append(name)
    return PassReport("remove_identities", tuple(changed), tuple(refused))


def _refuse(x: ir.Value, graph: ir.Graph | ir.Function) -> str | None:
    """Return why `x` cannot take over the name of an output of `graph`, or None."""
    if x.is_graph_output():
        return "its input is an output, too"
    maker = x.producer()
    if maker is None or maker.graph is not graph:
        return "its input is an input or a weight"
    return None

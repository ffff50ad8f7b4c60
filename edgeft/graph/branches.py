"""Operators that hold graphs of their own (If, Loop, Scan): these may read what is no input of the operator."""

from collections.abc import Iterator

import onnx_ir as ir

_GRAPHS = frozenset({ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS})


def holds_graphs(node: ir.Node) -> bool:
    """Return whether `node` holds a graph."""
    return any(attribute.type in _GRAPHS for attribute in node.attributes.values())


def read_by(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what `node` reads: its inputs, and whatever is read or returned inside of graphs that it holds."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type not in _GRAPHS:
            continue
        for graph in [attribute.as_graph()] if attribute.type is ir.AttributeType.GRAPH else attribute.as_graphs():
            yield from graph.outputs
            for inner in graph:
                yield from read_by(inner)

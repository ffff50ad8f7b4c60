"""Name nodes and tensors after the layers they come from, so that reports can be read and bytes are reproducible.

    Conv(x, "blocks.0.0.conv_dw.weight", ...)  ->  node and output "blocks.0.0.conv_dw", bias "blocks.0.0.conv_dw.bias"
    Clip(output of blocks.0.0.conv_dw)         ->  "blocks.0.0.conv_dw/Clip"
    MatMul(x, folded), Add(., "fc.bias")       ->  "fc/MatMul" and "fc"

A node with a weight or, where its weight was folded, with the bias behind it takes its module's name; any other takes
the layer of its first producer and its operator. A repeated name gets ".2", ".3", ... Names of graph inputs and outputs
stay.
"""

import onnx_ir as ir

from edgeft.graph.passes.report import PassReport

_WEIGHT, _BIAS = ".weight", ".bias"
_BIAS_INDEX = 2


def name_layers_(model: ir.Model) -> PassReport:
    """Name all nodes of the main graph of `model`, their outputs and their biases after layers."""
    graph = model.graph
    fixed = {value.name for value in (*graph.inputs, *graph.outputs) if value.name}
    names = _unique_names(graph, fixed)
    changed = [name for node, name in names.items() if node.name != name]
    wanted: dict[ir.Value, str] = {}
    for node, name in names.items():
        node.name = name
        for index, value in enumerate(node.outputs):
            if value.name not in fixed:
                wanted[value] = name if index == 0 else f"{name}:{index}"
        wanted |= _bias_name(node, name)
    taken = {name for name in graph.initializers if graph.initializers[name] not in wanted} | fixed
    wanted = {value: name for value, name in wanted.items() if name not in taken and value.name != name}
    changed += [name for name in wanted.values() if name not in changed]
    _rename_(wanted)
    return PassReport("name_layers", tuple(changed))


def _unique_names(graph: ir.Graph, fixed: set[str]) -> dict[ir.Node, str]:
    """Return a unique name for each node, in graph order."""
    names: dict[ir.Node, str] = {}
    taken = set(fixed)
    for node in graph:
        base = _module(node) or _before_bias(node) or _after_producer(node, names) or node.op_type
        name, repeat = base, 1
        while name in taken:
            repeat += 1
            name = f"{base}.{repeat}"
        taken.add(name)
        names[node] = name
    return names


def _module(node: ir.Node) -> str | None:
    """Return the module that owns the node's weight, by the weight's name."""
    for value in node.inputs:
        if value is not None and value.is_initializer() and value.name and value.name.endswith(_WEIGHT):
            return value.name.removesuffix(_WEIGHT)
    return _biased_module(node) if node.op_type == "Add" else None


def _biased_module(add: ir.Node) -> str | None:
    """Return the module whose bias `add` adds to a product with a constant, by the bias's name."""
    for value, other in (add.inputs, add.inputs[::-1]):
        product = None if other is None else other.producer()
        if (
            value is not None
            and value.is_initializer()
            and value.name
            and value.name.endswith(_BIAS)
            and product is not None
            and product.op_type == "MatMul"
        ):
            return value.name.removesuffix(_BIAS)
    return None


def _before_bias(node: ir.Node) -> str | None:
    """Return "<module>/MatMul" of a product whose module's bias is added behind it."""
    uses = node.outputs[0].uses() if node.op_type == "MatMul" else ()
    readers = [use.node for use in uses]
    module = _biased_module(readers[0]) if len(readers) == 1 and readers[0].op_type == "Add" else None
    return None if module is None else f"{module}/MatMul"


def _after_producer(node: ir.Node, names: dict[ir.Node, str]) -> str | None:
    """Return "<layer of the first producer>/<operator>"."""
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if producer is not None and producer in names:
            return f"{names[producer].split('/')[0]}/{node.op_type}"
    return None


def _bias_name(node: ir.Node, name: str) -> dict[ir.Value, str]:
    """Return the bias of a layer with a module's name, where no other node shares it, and its name."""
    if _module(node) is None or len(node.inputs) <= _BIAS_INDEX:
        return {}
    bias = node.inputs[_BIAS_INDEX]
    if bias is None or not bias.is_initializer() or len(bias.uses()) != 1:
        return {}
    return {bias: f"{name}.bias"}


def _rename_(wanted: dict[ir.Value, str]) -> None:
    """Rename all at once: initialisers are keyed by name, so two that swap names must not meet."""
    for index, value in enumerate(wanted):
        value.name = f"name_layers.{index}"
    for value, name in wanted.items():
        value.name = name

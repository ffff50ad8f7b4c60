"""Max pools on integers: the Q behind a MaxPool goes ahead of it.

    max(Q(x)) == Q(max(x))        rounding is monotone

So no number changes, but the pool, and what writes its input, move bytes in place of floats.
"""

import onnx_ir as ir


def pool_integers_(model: ir.Model) -> tuple[str, ...]:
    """Put the Q and DQ behind each MaxPool of `model` ahead of it, where nothing else reads the floats on either side.

    Returns:
        The names of the pools.
    """
    moved = []
    for node in list(model.graph):
        pair = _pair_behind(node)
        x = node.inputs[0] if node.inputs else None
        if pair is None or x is None or len(x.uses()) != 1:
            continue
        quantize, dequantize = pair
        real, output = dequantize.outputs[0], node.outputs[0]
        quantize.replace_input_with(0, x)
        quantize.outputs[0].shape = x.shape
        real.replace_all_uses_with(output)
        real.shape = x.shape
        node.replace_input_with(0, real)
        model.graph.remove([quantize, dequantize])
        model.graph.insert_before(node, [quantize, dequantize])
        moved.append(node.name or str(output.name))
    return tuple(moved)


def _pair_behind(node: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """Return the Q, and the DQ behind it, that alone read what the MaxPool `node` returns."""
    if node.op_type != "MaxPool" or len([value for value in node.outputs if value.uses()]) != 1:
        return None
    quantize = _only_reader(node.outputs[0], "QuantizeLinear")
    dequantize = None if quantize is None else _only_reader(quantize.outputs[0], "DequantizeLinear")
    return None if quantize is None or dequantize is None else (quantize, dequantize)


def _only_reader(value: ir.Value, kind: str) -> ir.Node | None:
    uses = tuple(value.uses())
    reader = uses[0].node if len(uses) == 1 and uses[0].idx == 0 else None
    return reader if reader is not None and reader.op_type == kind and not value.is_graph_output() else None

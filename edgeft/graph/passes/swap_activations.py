"""Put Relu in the place of HardSwish and SiLU. This changes what the graph computes: training must heal it.

    x * sigmoid(x)  and  x * clip(x / 6 + 1/2, 0, 1)   ->   max(x, 0)

All three agree for large |x|; they differ by at most .28 and .375. A Relu vanishes into the integer kernel before it,
where the others cost integer runtimes two more operators with scales of their own, or a float segment. Gates
(a Sigmoid or HardSigmoid of something else, as in squeeze-and-excite) are left alone.
"""

import onnx_ir as ir

from edgeft.graph.passes.report import PassReport
from edgeft.graph.passes.surgery import replace_

_GATES = ("Sigmoid", "HardSigmoid")


def swap_activations_(model: ir.Model) -> PassReport:
    """Replace every HardSwish and every x * gate(x) in the main graph of `model` by Relu."""
    changed = []
    for node in tuple(model.graph):
        x = _argument(node)
        if x is None:
            continue
        relu = ir.node("Relu", [x], name=node.name)
        relu.outputs[0].type, relu.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
        gates = [value.producer() for value in node.inputs if value is not None and value is not x]
        replace_(node, [relu])
        for gate in gates:
            if gate is not None and not gate.outputs[0].uses() and not gate.outputs[0].is_graph_output():
                model.graph.remove(gate, safe=True)
        changed.append(node.name or node.op_type)
    return PassReport("swap_activations", tuple(changed))


def _argument(node: ir.Node) -> ir.Value | None:
    """Return x where `node` computes HardSwish(x) or x * gate(x), else None."""
    if node.op_type in {"HardSwish", "Swish"}:
        return node.inputs[0]
    if node.op_type != "Mul":
        return None
    for value, other in (node.inputs, reversed(node.inputs)):
        gate = None if other is None else other.producer()
        if gate is not None and gate.op_type in _GATES and gate.inputs[0] is value:
            return value
    return None

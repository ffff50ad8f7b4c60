"""What onnxruntime will run in float, and every Q or DQ that it runs by itself, each with its cause.

The witness is onnxruntime's own optimised graph; the cause is read off the graph that was given to it.
"""

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort

from edgeft.core.exporter import LintFinding
from edgeft.graph.load import load
from edgeft_exporters.onnx.contract import Cause, explain, unexplained
from edgeft_exporters.onnx.optimised import OptimisedNode, optimise
from edgeft_exporters.onnx.placement import PLACEMENT


def lint(graph: Path) -> tuple[LintFinding, ...]:
    """Return the findings for the ONNX file `graph`, in the order in which onnxruntime runs it.

    A graph without any Q is float by choice: that is one finding.

    Raises:
        DataError: it is no ONNX model, or keeps weights in other files.
        EdgeftError: onnxruntime refuses it.
    """
    proto = load(graph)
    if not any(node.op_type == "QuantizeLinear" for node in proto.graph.node):
        reason = "the graph holds no QuantizeLinear: float32 was chosen"
        return (LintFinding("", "Graph", reason, "compress.precision: int8", expected=True),)
    nodes = optimise(proto, str(graph))
    causes = _float_causes(ir.from_proto(proto), nodes)
    operators = [
        LintFinding(node.name, node.op_type, cause.reason, cause.mend, cause.expected) for node, cause in causes.items()
    ]
    return (*operators, *_strays(nodes, causes))


def _float_causes(source: ir.Model, nodes: Iterable[OptimisedNode]) -> dict[OptimisedNode, Cause]:
    """Return why each float operator of the optimised graph is float."""
    by_name = {node.name: node for node in source.graph if node.name}
    by_output = {value.name: node for node in source.graph for value in node.outputs}
    causes = {}
    for node in nodes:
        if node.kind != "float":
            continue
        origin = by_name.get(node.name) or next((by_output[name] for name in node.outputs if name in by_output), None)
        cause = None if origin is None else explain(_head(origin, node.op_type), PLACEMENT)
        causes[node] = cause or unexplained(ort.__version__)
    return causes


def _head(origin: ir.Node, kernel: str) -> ir.Node:
    """Return the operator that does the work of `kernel`, which may bear the name of the Relu or Clip fused into it."""
    before = origin.inputs[0].producer() if origin.inputs and origin.inputs[0] is not None else None
    fused = origin.op_type in PLACEMENT.absorbed and before is not None and kernel.endswith(before.op_type)
    return before if fused and before is not None else origin


def _strays(nodes: tuple[OptimisedNode, ...], causes: dict[OptimisedNode, Cause]) -> list[LintFinding]:
    """Return every Q and DQ that was not fused away, and which neighbour keeps it alive."""
    producers = {name: node for node in nodes for name in node.outputs}
    consumers: dict[str, list[OptimisedNode]] = {}
    for node in nodes:
        for name in node.inputs:
            consumers.setdefault(name, []).append(node)
    findings = []
    for node in nodes:
        if node.kind == "quantize":
            cause = _why_quantize(_upstream(node, producers), causes)
        elif node.kind == "dequantize":
            cause = _why_dequantize(
                node, _downstream(node, consumers), causes, constant=node.inputs[0] not in producers
            )
        else:
            continue
        findings.append(LintFinding(node.name, node.op_type, cause.reason, cause.mend, cause.expected))
    return findings


def _why_quantize(before: OptimisedNode | None, causes: dict[OptimisedNode, Cause]) -> Cause:
    if before is None:
        return Cause("it quantizes a float input of the graph", "give the graph uint8 pixels", expected=True)
    if before.kind == "dequantize":
        return Cause("it converts between two scales", "give both sides one scale", expected=False)
    if before.kind == "integer":
        return Cause(f"the integer kernel of {before.name!r} returns float", "quantize its output once", expected=False)
    cause = causes.get(before)
    reason = f"{before.op_type} {before.name!r} before it runs in float"
    return Cause(reason, "mend that operator", expected=cause is not None and cause.expected)


def _why_dequantize(
    node: OptimisedNode, after: list[OptimisedNode], causes: dict[OptimisedNode, Cause], *, constant: bool
) -> Cause:
    if not after:
        return Cause("nothing but an output of the graph reads it", "nothing: outputs are float", expected=True)
    readers = [item for item in after if item.kind == "float"]
    what = "a constant is dequantized on every run" if constant else "it dequantizes"
    if not readers:
        found = ", ".join(f"{item.op_type} {item.name!r}" for item in after)
        return Cause(f"{what} for {found}", f"share the parameters of {node.inputs[0]!r}", expected=False)
    found = ", ".join(f"{item.op_type} {item.name!r}" for item in readers)
    expected = all(causes[item].expected for item in readers)
    return Cause(f"{what} for {found}, which runs in float", "mend that operator", expected=expected)


def _upstream(node: OptimisedNode, producers: dict[str, OptimisedNode]) -> OptimisedNode | None:
    """Return the first node before `node` that does more than move values."""
    before = producers.get(node.inputs[0])
    while before is not None and before.kind == "move":
        before = producers.get(before.inputs[0])
    return before


def _downstream(node: OptimisedNode, consumers: dict[str, list[OptimisedNode]]) -> list[OptimisedNode]:
    """Return the first nodes after `node` that do more than move values."""
    found: list[OptimisedNode] = []
    queue = [node]
    while queue:
        for name in queue.pop().outputs:
            for item in consumers.get(name, []):
                (queue if item.kind == "move" else found).append(item)
    return found

"""What onnxruntime will run in float, and every Q or DQ that it runs by itself, each with its cause.

The witness is onnxruntime's own optimised graph; the cause is read off the graph that was given to it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime as ort

from edgeft.core.exporter import LintFinding
from edgeft.graph.load import load
from edgeft.quantize.placement import Placement
from edgeft_exporters.contract import Cause, explain, float_by_choice, holds_quantized, unexplained
from edgeft_exporters.onnx.optimised import OptimisedNode, optimise
from edgeft_exporters.onnx.placement import PLACEMENT

_ROUNDED = Cause(
    "onnxruntime rounds its float weights by itself, with one scale for all of them, and pairs may saturate",
    "quantize it, or put a LeakyRelu(alpha = 1) behind it: then it runs in float",
    expected=False,
)


@dataclass(frozen=True, slots=True)
class _Diagnosis:
    """An operator of the given graph that runs in float, or was rounded by the runtime itself, and why."""

    node: str
    op_type: str
    cause: Cause

    def __str__(self) -> str:
        return f"{self.op_type} {self.node!r}"


def lint(graph: Path, placement: Placement = PLACEMENT) -> tuple[LintFinding, ...]:
    """Return the findings for the ONNX file `graph`: operators in running order, then Q and DQ.

    A graph in which nothing is quantized is float by choice: that is one finding.

    Args:
        graph: an ONNX model.
        placement: the rules by which it was quantized.

    Raises:
        DataError: it is no ONNX model, or keeps weights in other files.
        EdgeftError: onnxruntime refuses it.
    """
    proto = load(graph)
    if not holds_quantized(proto):
        return (float_by_choice(proto),)
    _name_(proto)
    nodes = optimise(proto, str(graph))
    floats = _float_operators(ir.from_proto(proto), nodes, placement)
    return (*map(_finding, dict.fromkeys(floats.values())), *map(_finding, _strays(nodes, floats)))


def _finding(item: _Diagnosis) -> LintFinding:
    return LintFinding(item.node, item.op_type, item.cause.reason, item.cause.mend, item.cause.expected)


def _name_(proto: onnx.ModelProto) -> None:
    """Give every nameless or doubly named node of `proto` a name of its own: names are how nodes are found again."""
    taken: set[str] = set()
    for index, node in enumerate(proto.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}#{index}"
        taken.add(node.name)


def _float_operators(
    source: ir.Model, nodes: tuple[OptimisedNode, ...], placement: Placement
) -> dict[OptimisedNode, _Diagnosis]:
    """Return what each float operator of the optimised graph was in `source`, and why; and what was rounded alone."""
    consumers = _consumers(nodes)
    by_name = {str(node.name): node for node in source.graph}
    by_output = {str(value.name): node for node in source.graph for value in node.outputs}
    gone = set(by_name) - {node.name for node in nodes}
    found = {}
    for node in nodes:
        if node.kind == "integer":
            rounded = by_name.get(node.name)
            if rounded is not None and _float_weight(rounded, placement):
                found[node] = _Diagnosis(node.name, rounded.op_type, _ROUNDED)
            continue
        if node.kind != "float":
            continue
        kept = by_name.get(node.name) or next((by_output[name] for name in node.outputs if name in by_output), None)
        origin = kept or _function(node, by_name, gone, consumers)
        if origin is None:
            found[node] = _Diagnosis(
                node.name or node.outputs[0], node.op_type, unexplained("onnxruntime", ort.__version__)
            )
            continue
        head = _head(origin, node.op_type)
        cause = explain(head, placement) or unexplained("onnxruntime", ort.__version__)
        found[node] = _Diagnosis(str(head.name), head.op_type, cause)
    return found


def _float_weight(node: ir.Node, placement: Placement) -> bool:
    """Return whether `node`, which runs in integers, has a float weight in the file."""
    rule = placement.rule(node.op_type)
    weight = None if rule is None or rule.weight is None else node.inputs[rule.weight]
    return weight is not None and weight.is_initializer()


def _function(
    node: OptimisedNode,
    by_name: Mapping[str, ir.Node],
    gone: set[str],
    consumers: Mapping[str, list[OptimisedNode]],
) -> ir.Node | None:
    """Return the operator of which the nameless `node` is a part.

    onnxruntime runs function operators such as HardSwish as several nodes without names. The nearest node downstream
    that still has a name leads back to the one that is gone.
    """
    queue = [node]
    while queue:
        for item in (item for name in queue.pop(0).outputs for item in consumers.get(name, [])):
            if item.name not in by_name:
                queue.append(item)
                continue
            before = [value.producer() for value in by_name[item.name].inputs if value is not None]
            lost = [candidate for candidate in before if candidate is not None and candidate.name in gone]
            if lost:
                return lost[0]
    return None


def _head(origin: ir.Node, kernel: str) -> ir.Node:
    """Return the operator that does the work of `kernel`, which may bear the name of the activation fused into it."""
    before = origin.inputs[0].producer() if origin.inputs and origin.inputs[0] is not None else None
    fused = (
        origin.op_type in {*PLACEMENT.absorbed, "LeakyRelu"} and before is not None and kernel.endswith(before.op_type)
    )
    return before if fused and before is not None else origin


def _strays(nodes: tuple[OptimisedNode, ...], floats: Mapping[OptimisedNode, _Diagnosis]) -> list[_Diagnosis]:
    """Return every Q and DQ that was not fused away, and which neighbour keeps it alive."""
    producers = {name: node for node in nodes for name in node.outputs}
    consumers = _consumers(nodes)
    found = []
    for node in nodes:
        if node.kind == "quantize":
            cause = _why_quantize(_upstream(node, producers), floats)
        elif node.kind == "dequantize":
            what = "it dequantizes" if node.inputs[0] in producers else "a constant is dequantized on every run"
            cause = _why_dequantize(what, _downstream(node, consumers), floats)
        else:
            continue
        found.append(_Diagnosis(node.name or node.outputs[0], node.op_type, cause))
    return found


def _why_quantize(before: OptimisedNode | None, floats: Mapping[OptimisedNode, _Diagnosis]) -> Cause:
    if before is None:
        return Cause("it quantizes an input of the graph", "give the graph quantized pixels", expected=True)
    if before in floats:
        reason, expected = f"{floats[before]} before it runs in float", floats[before].cause.expected
        return Cause(reason, "mend that operator", expected=expected)
    if before.kind == "dequantize":
        return Cause("it converts between two scales", "give both sides one scale", expected=False)
    return Cause(f"the integer kernel of {before.name!r} returns float", "quantize its output once", expected=False)


def _why_dequantize(what: str, after: list[OptimisedNode], floats: Mapping[OptimisedNode, _Diagnosis]) -> Cause:
    if not after:
        return Cause("nothing but an output of the graph reads it", "nothing: outputs are float", expected=True)
    readers = list(dict.fromkeys(floats[item] for item in after if item in floats))
    if not readers:
        found = ", ".join(f"{item.op_type} {item.name!r}" for item in after)
        return Cause(f"{what} for {found}", "share scale and zero point with it", expected=False)
    found = ", ".join(map(str, readers))
    expected = all(reader.cause.expected for reader in readers)
    return Cause(f"{what} for {found}, which runs in float", "mend that operator", expected=expected)


def _consumers(nodes: Iterable[OptimisedNode]) -> dict[str, list[OptimisedNode]]:
    consumers: dict[str, list[OptimisedNode]] = {}
    for node in nodes:
        for name in node.inputs:
            consumers.setdefault(name, []).append(node)
    return consumers


def _upstream(node: OptimisedNode, producers: Mapping[str, OptimisedNode]) -> OptimisedNode | None:
    """Return the first node before `node` that does more than move values."""
    before = producers.get(node.inputs[0])
    while before is not None and before.kind == "move":
        before = producers.get(before.inputs[0])
    return before


def _downstream(node: OptimisedNode, consumers: Mapping[str, list[OptimisedNode]]) -> list[OptimisedNode]:
    """Return the first nodes after `node` that do more than move values."""
    found: list[OptimisedNode] = []
    queue = [node]
    while queue:
        for name in queue.pop().outputs:
            for item in consumers.get(name, []):
                (queue if item.kind == "move" else found).append(item)
    return found

"""What OpenVINO will run in float, and every Q that it runs by itself, each with its cause.

The witness is its own compiled model; the cause is read off the graph that was given to it.
"""

from pathlib import Path

import onnx_ir as ir
import openvino

from edgeft.core.exporter import LintFinding
from edgeft.graph.load import load
from edgeft_exporters.contract import explain, float_by_choice, holds_quantized, unexplained
from edgeft_exporters.openvino.executed import Executed, executed, made_by
from edgeft_exporters.openvino.placement import PLACEMENT
from edgeft_exporters.openvino.session import compiled, options, read


def lint(graph: Path) -> tuple[LintFinding, ...]:
    """Return the findings for the ONNX file `graph`, in running order.

    Raises:
        DataError: it is no ONNX model, or keeps weights in other files.
        EdgeftError: OpenVINO refuses it.
    """
    proto = load(graph)
    if not holds_quantized(proto):
        return (float_by_choice(proto),)
    source = ir.from_proto(proto)
    makers = {str(value.name): node for node in source.graph for value in node.outputs}
    model = compiled(read(graph), options(1), str(graph))
    found: dict[LintFinding, None] = {}
    for item in executed(model, made_by(proto.graph)):
        if item.kind in {"float", "quantize"}:
            found.setdefault(_finding(item, makers.get(item.tensor or "")))
    return tuple(found)


def _finding(item: Executed, node: ir.Node | None) -> LintFinding:
    cause = unexplained("OpenVINO", openvino.__version__)
    if node is None:
        return LintFinding(item.name, item.layer, cause.reason, cause.mend, cause.expected)
    name = node.name or str(node.outputs[0].name)
    if item.kind == "quantize":
        before = node.inputs[0].producer() if node.inputs[0] is not None else None
        what = "an input of the graph" if before is None else f"what {before.op_type} {before.name!r} returns"
        return LintFinding(
            name,
            "QuantizeLinear",
            f"it quantizes {what} in a pass of its own",
            "nothing: it is needed by the operator behind it",
            expected=True,
        )
    cause = explain(node, PLACEMENT) or cause
    return LintFinding(name, node.op_type, cause.reason, cause.mend, cause.expected)

"""onnxruntime's own optimised graph: what it will run, after every fusion.

Kernel names tell integer from float: `QLinear*`, `QGemm`, `ConvInteger` and their like compute on integers; operators
that only move values compute on whatever comes in, which is followed from the graph's inputs.
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgeft.runtime.session import session_options
from edgeft_exporters.onnx.session import open_bytes

_APPENDED = re.compile(r"(_token_\d+|_nchwc|_nhwc)+$")
"""What onnxruntime's rewriters append to the name of the node they replace."""
_INTEGER = re.compile(
    r"QLinear\w+|QGemm|\w+Integer(ToFloat)?|MatMulNBits|DynamicQuantize\w+|QAttention|QEmbed\w+|NhwcMaxPool"
)
_MOVING = frozenset(
    (
        *("Transpose", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Gather", "Identity", "Expand", "Tile"),
        *("ReorderInput", "ReorderOutput", "Shape", "Constant"),
    )
)
"""Operators without arithmetic: in float they cost a copy, never precision."""
_SELECTING = frozenset({"MaxPool", "Concat", "Split", "DepthToSpace", "Resize", "Upsample"})
"""Operators that run on integers where integers come in."""


@dataclass(frozen=True, slots=True)
class OptimisedNode:
    """One operator that onnxruntime will run.

    Args:
        name: the source node's name: without what the rewriters appended.
        op_type: the kernel, e.g. "QLinearConv", "FusedConv".
        inputs: tensor names.
        outputs: tensor names.
        kind: "integer", "float", "quantize", "dequantize" or "move".
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kind: str


def optimise(model: onnx.ModelProto, name: str) -> tuple[OptimisedNode, ...]:
    """Return the operators that onnxruntime runs for `model` at its highest optimisation level, in order.

    Raises:
        EdgeftError: onnxruntime refuses the model.
    """
    with tempfile.TemporaryDirectory(prefix="edgeft-lint-") as folder:
        file = Path(folder) / "optimised.onnx"
        options = session_options(1, spinning=False)
        options.optimized_model_filepath = str(file)
        open_bytes(model.SerializeToString(), name, options)
        graph = onnx.load(file).graph
    integers = _integer_tensors(graph)
    return tuple(
        OptimisedNode(
            source_name(node.name), node.op_type, tuple(node.input), tuple(node.output), _kind(node, integers)
        )
        for node in graph.node
    )


def source_name(name: str) -> str:
    """Return the name, in the given graph, of the node that became the optimised node `name`."""
    return _APPENDED.sub("", name)


def _kind(node: onnx.NodeProto, integers: set[str]) -> str:
    if node.op_type == "QuantizeLinear":
        return "quantize"
    if node.op_type == "DequantizeLinear":
        return "dequantize"
    if _INTEGER.fullmatch(node.op_type) or (node.op_type in _SELECTING and node.input[0] in integers):
        return "integer"
    return "move" if node.op_type in _MOVING else "float"


def _integer_tensors(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that hold 8-bit integers."""
    eight_bits = {onnx.TensorProto.UINT8, onnx.TensorProto.INT8}
    found = {value.name for value in graph.input if value.type.tensor_type.elem_type in eight_bits}
    found |= {tensor.name for tensor in graph.initializer if tensor.data_type in eight_bits}
    for node in graph.node:
        moves = node.op_type in _MOVING | _SELECTING and bool(node.input) and node.input[0] in found
        if moves or node.op_type == "QuantizeLinear" or re.fullmatch(r"QLinear\w+", node.op_type):
            found.update(node.output)
    return found

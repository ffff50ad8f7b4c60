"""What OpenVINO runs for a graph, after every fusion, and which tensor of the graph each operator makes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import openvino

_PASSIVE = frozenset({"Input", "Output", "Const"})
_MOVING = frozenset({"Reshape", "Transpose", "Reorder", "Convert", "Concatenation", "Split", "StridedSlice", "Gather"})
_INTEGERS = frozenset({"u8", "i8", "i4", "u4"})
_PARTS = ("/WithoutBiases", "_original")
"""What OpenVINO appends to the name of an ONNX operator that it makes from several of its own."""


@dataclass(frozen=True, slots=True)
class Executed:
    """One operator that OpenVINO runs.

    Args:
        name: its own.
        layer: its type, e.g. "Convolution".
        tensor: of the given graph, that it makes or that is next downstream; None where there is none.
        kind: "integer", "float", "quantize" or "move".
    """

    name: str
    layer: str
    tensor: str | None
    kind: str


def made_by(graph: onnx.GraphProto) -> dict[str, str]:
    """Return node or tensor name -> the first tensor that the node makes: OpenVINO names operators by either."""
    made = {node.name: node.output[0] for node in graph.node if node.name}
    return made | {name: name for node in graph.node for name in node.output}


def executed(model: openvino.CompiledModel, known: Mapping[str, str]) -> tuple[Executed, ...]:
    """Return the operators that run, in order; constants, inputs and outputs are left out.

    Args:
        model: compiled.
        known: see `made_by`, of the ONNX graph that it was made from.
    """
    nodes = list(model.get_runtime_model().get_ordered_ops())
    tensors: dict[str, str | None] = {}
    for node in reversed(nodes):
        own = [_tensor(name, known) for name in _fact(node, "originalLayersNames").split(",")]
        mine = [tensor for tensor in own if tensor is not None]
        below = [
            tensors[target.get_node().get_friendly_name()]
            for out in node.outputs()
            for target in out.get_target_inputs()
        ]
        tensors[node.get_friendly_name()] = mine[0] if mine else next((name for name in below if name), None)
    return tuple(
        Executed(name, layer, tensors[name], _kind(layer, _fact(node, "runtimePrecision")))
        for node in nodes
        for name, layer in [(node.get_friendly_name(), _fact(node, "layerType"))]
        if layer not in _PASSIVE
    )


def _tensor(name: str, known: Mapping[str, str]) -> str | None:
    for part in _PARTS:
        name = name.removesuffix(part)
    return known.get(name)


def _kind(layer: str, precision: str) -> str:
    if layer == "FakeQuantize":
        return "quantize"
    if layer in _MOVING:
        return "move"
    return "integer" if precision in _INTEGERS else "float"


def _fact(node: Any, key: str) -> str:  # noqa: ANN401 - openvino.Node, whose facts have any type
    facts = node.get_rt_info()
    if key not in facts:
        return ""
    value = facts[key]
    return str(getattr(value, "value", value))

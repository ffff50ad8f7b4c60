"""Which tensors of two graphs stand for the same thing: same name, or the same place among the outputs.

A quantized tensor `t` is compared as its readers see it: dequantized, after the Q/DQ pair that follows it. What a Relu
or Clip alone reads is compared behind it, since errors that it cuts off do no harm. Nothing behind `logits` is
compared: there each graph has a temperature of its own.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import onnx

from edgeft.core.errors import DataError
from edgeft.quantize.candidates import LOGITS

_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})
_CONSTANT, _DEQUANTIZE = "Constant", "DequantizeLinear"
_STORED = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4, onnx.TensorProto.UINT4})
_INTEGER = frozenset({_DEQUANTIZE, "ConvInteger", "MatMulInteger", "MatMulNBits"})
_ACTIVATIONS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True, slots=True)
class Pair:
    """One tensor in both graphs.

    Args:
        name: in the base graph.
        seen: what readers of it read in the new graph.
        layer: the operator that makes it, by the name of its module where it has one.
        op_type: of that operator.
        integer: whether it, or a weight that it is made with, is quantized in the new graph.
        sources: the nearest aligned tensors that it is computed from in the new graph, and inputs of that graph.
    """

    name: str
    seen: str
    layer: str
    op_type: str
    integer: bool
    sources: tuple[str, ...]


def align(base: onnx.ModelProto, new: onnx.ModelProto) -> tuple[Pair, ...]:
    """Return the aligned float tensors, in the base graph's order; outputs last.

    Raises:
        DataError: the graphs take other inputs, or share no tensor.
    """
    before, after = ([value.name for value in model.graph.input] for model in (base, new))
    weights = [{tensor.name for tensor in model.graph.initializer} for model in (base, new)]
    inputs = [[name for name in names if name not in own] for names, own in zip((before, after), weights, strict=True)]
    if inputs[0] != inputs[1]:
        raise DataError(f"the graphs take other inputs: {', '.join(inputs[0])} against {', '.join(inputs[1])}")
    uncompared = _uncompared(base)
    seen = {name: read for name, read in _seen(base, new).items() if name not in uncompared}
    if not seen:
        raise DataError(
            "the graphs share no tensor name, so no layer of one can be found in the other",
            hint="compare a graph with what was made of it, e.g. candidates/fp32 and candidates/int8",
        )
    makers = {name: node for node in new.graph.node for name in node.output}
    known = {**{readable: name for name, readable in seen.items()}, **{name: name for name in inputs[1]}}
    floats, layers = _float_tensors(base), _layers(base)
    stored = {tensor.name for tensor in new.graph.initializer if tensor.data_type in _STORED}
    known_before = {name for node in base.graph.node for name in node.output}
    return tuple(
        Pair(
            name,
            seen[name],
            layers[name][0],
            layers[name][1],
            _is_integer(seen[name], makers, known_before, stored),
            tuple(dict.fromkeys(known[source] for source in _sources(seen[name], makers, known))),
        )
        for node in base.graph.node
        for name in node.output
        if name in seen and name in floats and node.op_type != _CONSTANT
    )


def _seen(base: onnx.ModelProto, new: onnx.ModelProto) -> dict[str, str]:
    """Return base tensor -> the tensor of the new graph that its readers read."""
    made = {name for node in base.graph.node for name in node.output if name}
    found = {name: name for node in new.graph.node for name in node.output if name in made}
    quantized = {node.input[0]: node.output[0] for node in new.graph.node if node.op_type == "QuantizeLinear"}
    dequantized = {node.input[0]: node.output[0] for node in new.graph.node if node.op_type == "DequantizeLinear"}
    readers: dict[str, int] = {}
    for node in new.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for name in list(found):
        pair = dequantized.get(quantized.get(name, ""))
        if pair is not None and readers[name] == 1:
            found[name] = pair
    for one, other in zip(base.graph.output, new.graph.output, strict=False):
        found.setdefault(one.name, other.name)
    return found


def _is_integer(
    target: str, makers: Mapping[str, onnx.NodeProto], before: Collection[str], stored: Collection[str]
) -> bool:
    """Return whether integers are on the way to `target` (before a Relu or Clip) from the nearest tensors of the base.

    They are there where an operator dequantizes, multiplies integers, or reads weights that are `stored` as such.
    Tensors that are dequantized in the base graph, too (`before`), such as pixels, are none.
    """
    node = makers.get(target)
    while node is not None and node.op_type in _ACTIVATIONS:
        node = makers.get(node.input[0])
    stack = [] if node is None else [node]
    while stack:
        each = stack.pop()
        fresh = each.output[0] not in before
        if fresh and (each.op_type in _INTEGER or any(name in stored for name in each.input)):
            return True
        stack += [makers[name] for name in each.input if name in makers and name not in before]
    return False


def _uncompared(model: onnx.ModelProto) -> set[str]:
    """Return the tensors that only one Relu or Clip reads, and those behind `logits`."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    cut = {
        name
        for name, nodes in readers.items()
        if len(nodes) == 1 and nodes[0].op_type in _ACTIVATIONS and nodes[0].input[0] == name and name not in outputs
    }
    behind, stack = set(), [LOGITS]
    while stack:
        for node in readers.get(stack.pop(), ()):
            fresh = [name for name in node.output if name not in behind]
            behind.update(fresh)
            stack.extend(fresh)
    return cut | behind


def _layers(model: onnx.ModelProto) -> dict[str, tuple[str, str]]:
    """Return tensor -> (name, type) of the operator that makes it; an activation goes by what it acts on."""
    makers = {name: node for node in model.graph.node for name in node.output}
    cut = _uncompared(model)
    found = {}
    for name, node in makers.items():
        acted = node.op_type in _ACTIVATIONS and node.input[0] in cut and node.input[0] in makers
        named = makers[node.input[0]] if acted else node
        found[name] = (named.name or name, named.op_type)
    return found


def _sources(target: str, makers: Mapping[str, onnx.NodeProto], known: Mapping[str, str]) -> Iterator[str]:
    """Yield the aligned tensors and graph inputs that `target` is computed from, nearest first."""
    stack, visited = list(makers[target].input) if target in makers else [], set()
    while stack:
        name = stack.pop()
        if name in visited:
            continue
        visited.add(name)
        if name in known:
            yield name
        elif name in makers:
            stack.extend(makers[name].input)


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Return the names of float tensors, as far as shapes can be inferred; of unknown types all."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    typed = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    return {
        name for node in model.graph.node for name in node.output if typed.get(name, onnx.TensorProto.FLOAT) in _FLOATS
    }

"""Why a runtime leaves an operator in float: which term of the fusion contract its surroundings break.

The contract (rules in each target's placement.py): every input from a DQ, the only consumer exactly one Q after at most
one Relu or Clip that this Q makes redundant, no graph output, Gemm with alpha = beta = 1, Conv and Gemm with int8
weights.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgeft.core.exporter import LintFinding
from edgeft.graph.load import load
from edgeft.quantize.placement import OpRule, OutputRule, Placement

_PREPROCESSING = frozenset({"Cast", "Sub", "Div", "Mul", "Add", "Transpose", "DequantizeLinear"})
_NO_ARITHMETIC = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Constant", "Shape", "Gather", "Cast", "Transpose", "Flatten", "Reshape"}
)
_INTEGER_PRODUCTS = frozenset({"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"})
_NOTHING = "nothing: it is meant to be float"
_SKIPPED = "see `skipped` in candidates.json for the reason"
_BUILT = (
    "edgeft builds it of integer Add and Mul: quantize the float model with it, or see `skipped` in candidates.json"
)
_REPORT = "report it with the model: the placement promises an integer kernel here"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why one operator runs in float, what would mend it, and whether float was asked for."""

    reason: str
    mend: str
    expected: bool


def explain(node: ir.Node, placement: Placement) -> Cause | None:
    """Return why `node` of a Q/DQ graph runs in float on `placement`'s target; None where nothing explains it."""
    if _reads(node, set(placement.float_outputs)):
        return Cause("it works on the logits, which stay float by design", _NOTHING, expected=True)
    if prepared := _prepared(node):
        return Cause(_preparation(prepared), _NOTHING, expected=True)
    gate = placement.gate(node.op_type)
    rule = gate or placement.rule(node.op_type)
    if rule is None:
        return Cause(placement.float_reason(node.op_type), _mend_operator(node.op_type), expected=False)
    activations = _activations(node, rule)
    weight = None if rule.weight is None else node.inputs[rule.weight]
    fed = any(_is_fed(value, placement) for value in (*activations, weight) if value is not None)
    if not fed or (weight is not None and dequantizer(weight) is None):
        reason = "its weight is float" if fed else "no DequantizeLinear feeds it"
        return Cause(f"{reason}: compress left it in float", _SKIPPED, expected=True)
    for broken in (
        None if gate is None else (placement.float_reason(node.op_type), _BUILT),
        _broken_input(activations),
        _broken_factors(node, rule, placement),
        _broken_output(node, rule, placement),
    ):
        if broken is not None:
            return Cause(*broken, expected=False)
    return None


def by_contract(graph: Path, placement: Placement) -> tuple[LintFinding, ...]:
    """Return what runs in float by the contract alone, for a runtime that is not here to be asked.

    Raises:
        DataError: `graph` is no ONNX model, or keeps weights in other files.
    """
    proto = load(graph)
    if not holds_quantized(proto):
        return (float_by_choice(proto),)
    found = []
    for node in ir.from_proto(onnx.shape_inference.infer_shapes(proto)).graph:
        left_out = node.op_type in _NO_ARITHMETIC or _absorbed(node, placement) or _on_integers(node)
        cause = None if left_out else explain(node, placement)
        if cause is not None:
            name = node.name or str(node.outputs[0].name)
            found.append(LintFinding(name, node.op_type, cause.reason, cause.mend, cause.expected))
    return tuple(found)


def _on_integers(node: ir.Node) -> bool:
    """Return whether `node` quantizes as it runs, multiplies integers, or is the product of their scales."""
    if node.op_type in _INTEGER_PRODUCTS:
        return True
    makers = [maker for value in node.inputs if value is not None and (maker := value.producer()) is not None]
    behind = [maker.inputs[0].producer() for maker in makers if maker.op_type == "Cast" and maker.inputs[0] is not None]
    return node.op_type == "Mul" and any(
        maker is not None and maker.op_type in _INTEGER_PRODUCTS for maker in (*makers, *behind)
    )


def _absorbed(node: ir.Node, placement: Placement) -> bool:
    """Return whether `node` vanishes into the operator before it, which has its own finding if it is float."""
    before = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    rule = None if before is None else placement.rule(before.op_type)
    return node.op_type in placement.absorbed and rule is not None and rule.output is OutputRule.QUANTIZE


def unexplained(runtime: str, version: str) -> Cause:
    """Return the cause of an operator that keeps the contract and still runs in float."""
    reason = f"{runtime} {version} keeps it in float although its inputs and output are quantized as it asks"
    return Cause(reason, _REPORT, expected=False)


def holds_quantized(proto: onnx.ModelProto) -> bool:
    """Return whether an activation of `proto` gets a Q or a weight comes from a DQ."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return any(
        node.op_type in {"QuantizeLinear", "DynamicQuantizeLinear"}
        or (node.op_type == "DequantizeLinear" and node.input[0] in weights)
        for node in proto.graph.node
    )


def float_by_choice(proto: onnx.ModelProto) -> LintFinding:
    """Return the one finding for a graph in which nothing is quantized."""
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in proto.graph.initializer)
    reason = f"nothing in the graph is quantized: {'float16' if half else 'float32'} was chosen"
    return LintFinding("", "Graph", reason, "compress.precision: int8", expected=True)


def dequantizer(value: ir.Value | None) -> ir.Node | None:
    """Return the DequantizeLinear that makes `value`, or None."""
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _is_fed(value: ir.Value, placement: Placement) -> bool:
    """Return whether `value` comes from a DequantizeLinear, perhaps past operators that only move values."""
    producer = value.producer()
    while producer is not None and producer.op_type != "DequantizeLinear":
        rule = placement.rule(producer.op_type)
        if rule is None or rule.output is not OutputRule.SHARE or producer.inputs[0] is None:
            return False
        producer = producer.inputs[0].producer()
    return producer is not None


def _activations(node: ir.Node, rule: OpRule) -> list[ir.Value]:
    indices = rule.activations or range(len(node.inputs))
    chosen = (node.inputs[index] for index in indices if index < len(node.inputs))
    return [value for value in chosen if value is not None]


def _broken_input(activations: list[ir.Value]) -> tuple[str, str] | None:
    types = set()
    for value in activations:
        source = dequantizer(value)
        if source is None:
            producer = value.producer()
            origin = "a constant" if producer is None else f"{producer.op_type} {producer.name!r}, which is in float"
            return f"its input {value.name!r} comes from {origin}", "quantize that tensor"
        types.add(_zero_point_type(source))
    if len(types) > 1:
        return f"its inputs have different types: {sorted(map(str, types))}", "use one activation type"
    return None


def _broken_factors(node: ir.Node, rule: OpRule, placement: Placement) -> tuple[str, str] | None:
    if node.op_type == "Gemm":
        factors = {name: node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")}
        if set(factors.values()) != {1.0}:
            return f"the integer Gemm needs alpha = beta = 1, found {factors}", "fold the factors into weight and bias"
        bias = node.inputs[rule.bias] if rule.bias is not None and rule.bias < len(node.inputs) else None
        if placement.bias is not None and bias is not None and dequantizer(bias) is None:
            return "its bias is float", "quantize the bias to int32"
    return None


def _broken_output(node: ir.Node, rule: OpRule, placement: Placement) -> tuple[str, str] | None:
    output, absorbed = _end(node, placement)
    quantizers = [consumer for consumer in output.consumers() if consumer.op_type == "QuantizeLinear"]
    others = [consumer for consumer in output.consumers() if consumer.op_type != "QuantizeLinear"]
    if rule.output is OutputRule.FLOAT or (node.op_type == "Gemm" and not quantizers and absorbed is None):
        return None
    if output.is_graph_output():
        return f"its output {output.name!r} is an output of the graph", "return another tensor"
    if len(quantizers) != 1:
        return f"{len(quantizers)} QuantizeLinear follow it, exactly one may", "give its output one QuantizeLinear"
    if others:
        found = ", ".join(f"{consumer.op_type} {consumer.name!r}" for consumer in others)
        return f"{found} reads its output in float", "let it read the dequantized tensor"
    if absorbed is not None and not _is_redundant(absorbed, quantizers[0]):
        return (
            f"{absorbed.op_type} {absorbed.name!r} stays between it and its Q",
            "keep the Q's range inside its limits",
        )
    return _broken_parameters(node, rule, quantizers[0])


def _end(node: ir.Node, placement: Placement) -> tuple[ir.Value, ir.Node | None]:
    """Return the tensor after `node` and the one Relu or Clip that may stand there, and that operator."""
    output = node.outputs[0]
    consumers = output.consumers()
    if len(consumers) == 1 and consumers[0].op_type in placement.absorbed and not output.is_graph_output():
        return consumers[0].outputs[0], consumers[0]
    return output, None


def _broken_parameters(node: ir.Node, rule: OpRule, quantizer: ir.Node) -> tuple[str, str] | None:
    source = dequantizer(_activations(node, rule)[0])
    if source is not None and _zero_point_type(source) != _zero_point_type(quantizer):
        return "its input and output have different integer types", "use one activation type"
    if source is not None and rule.output is OutputRule.SHARE and _parameters(source) != _parameters(quantizer):
        return "it moves values, so its output needs the parameters of its input", "share scale and zero point"
    return None


def _is_redundant(clip: ir.Node, quantizer: ir.Node) -> bool:
    """Return whether the Q's range lies inside what `clip` lets through, to half a step."""
    scale, zero_point = _constant(quantizer.inputs[1]), _constant(quantizer.inputs[2])
    if scale is None or zero_point is None:
        return False
    info, step = np.iinfo(zero_point.dtype), float(scale)
    low, high = ((bound - int(zero_point)) * step for bound in (info.min, info.max))
    limits = [None if value is None else _constant(value) for value in clip.inputs[1:]] + [None, None]
    lower = 0.0 if clip.op_type == "Relu" else -np.inf if limits[0] is None else float(limits[0])
    upper = np.inf if limits[1] is None else float(limits[1])
    return bool(low >= lower - step / 2 and high <= upper + step / 2)


def _preparation(prepared: set[ir.Value]) -> str:
    """Return what is done with these inputs of the graph before anything is quantized."""
    if all(value.dtype == ir.DataType.UINT8 for value in prepared):
        return "it normalises the pixels: mean and std differ between channels"
    names = ", ".join(sorted(f"{value.name!r}" for value in prepared))
    return f"it prepares {names}, before anything is quantized"


def _prepared(node: ir.Node) -> set[ir.Value]:
    """Return the graph's inputs that `node` works on, where only arithmetic lies between; empty where more does."""
    if node.op_type not in _PREPROCESSING:
        return set()
    found: set[ir.Value] = set()
    for value in node.inputs:
        if value is None or value.is_initializer():
            continue
        producer = value.producer()
        before = {value} if producer is None else _prepared(producer)
        if not before:
            return set()
        found |= before
    return found


def _reads(node: ir.Node, names: set[str]) -> bool:
    """Return whether one of the tensors `names` is upstream of `node`."""
    stack, seen = [node], {node}
    while stack:
        for value in stack.pop().inputs:
            if value is not None and value.name in names:
                return True
            producer = None if value is None else value.producer()
            if producer is not None and producer not in seen:
                seen.add(producer)
                stack.append(producer)
    return False


def _constant(value: ir.Value | None) -> np.ndarray | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _parameters(node: ir.Node) -> tuple[object, ...]:
    """Return scale and zero point of a Q or DQ as comparable values."""
    arrays = [_constant(value) for value in node.inputs[1:]]
    return tuple(None if array is None else array.tobytes() for array in arrays)


def _zero_point_type(node: ir.Node) -> ir.DataType | None:
    value = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004 - x, scale, zero point
    return ir.DataType.UINT8 if value is None else value.dtype


def _mend_operator(op_type: str) -> str:
    if op_type in {"HardSwish", "HardSigmoid", "Gelu", "Erf", "Tanh"}:
        return "choose an architecture with Relu or Relu6, such as timm/tf_efficientnet_lite0"
    if op_type in {"Relu", "Clip"}:
        return "quantize the operator before it"
    return _NOTHING if op_type == "Softmax" else "choose an architecture without it, or accept it: latency is measured"

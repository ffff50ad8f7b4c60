"""TensorRT's rules for explicit quantization, checked on the graph: no runtime is needed, and none was asked.

A breach is a finding that is not expected: the builder would refuse the graph or run the layer in float. Layers left in
float are findings, too, each with its reason.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgeft.core.exporter import LintFinding
from edgeft.graph.load import load
from edgeft.quantize.plan import constant, shortcut
from edgeft_exporters.contract import dequantizer, float_by_choice, holds_quantized
from edgeft_exporters.tensorrt.placement import PLACEMENT

_TARGET = "quantize with --target tensorrt"
_WEIGHTED = {rule.op_type: rule for rule in PLACEMENT.rules}


def lint(graph: Path) -> tuple[LintFinding, ...]:
    """Return every breach, then every weighted operator that stays float.

    Raises:
        DataError: it is no ONNX model, or keeps weights in other files.
    """
    proto = load(graph)
    if not holds_quantized(proto):
        return (float_by_choice(proto),)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    return (*breaches(model), *_floats(model))


def breaches(model: ir.Model) -> tuple[LintFinding, ...]:
    """Return where the Q/DQ pairs of `model` break a rule; a float graph breaks none."""
    return tuple(finding for node in model.graph for finding in _breaches(node))


def _breaches(node: ir.Node) -> Iterator[LintFinding]:
    match node.op_type:
        case "QuantizeLinear" | "DequantizeLinear":
            yield from _of_pair(node)
        case "Add":
            yield from _of_add(node)
        case op_type if op_type in _WEIGHTED:
            yield from _of_weighted(node)


def _of_pair(node: ir.Node) -> Iterator[LintFinding]:
    zero = constant(node.inputs[2]) if node.inputs[2:] else None
    if zero is None or zero.dtype != np.int8 or zero.any():
        found = "absent" if zero is None else f"{zero.dtype}, {'not ' if zero.any() else ''}all 0"
        yield _breach(node, f"its zero point must be int8 and 0, it is {found}", _TARGET)
    if node.op_type == "QuantizeLinear" and node.inputs[0] is not None:
        twins = [reader for reader in node.inputs[0].consumers() if reader.op_type == "QuantizeLinear"]
        if len(twins) > 1 and twins[0] is node:
            yield _breach(node, f"{len(twins)} QuantizeLinear read one tensor, one may", "share the first")


def _of_weighted(node: ir.Node) -> Iterator[LintFinding]:
    rule = _WEIGHTED[node.op_type]
    weight_dq = dequantizer(node.inputs[rule.weight or 0])
    fed = dequantizer(node.inputs[0]) is not None
    if fed != (weight_dq is not None):
        missing = "weight" if fed else "input"
        yield _breach(node, f"its {missing} is float, the other integers: quantize both or none", _TARGET)
    if rule.bias is not None and rule.bias < len(node.inputs) and dequantizer(node.inputs[rule.bias]) is not None:
        yield _breach(node, "its bias is quantized", "leave the bias float")
    if weight_dq is not None:
        axis = rule.channel_axis(transposed=bool(node.attributes.get_int("transB", 0)))
        scale = constant(weight_dq.inputs[1])
        if scale is not None and scale.size > 1 and weight_dq.attributes.get_int("axis", 1) != axis:
            yield _breach(
                node, f"its weight scales run along another axis than {axis}", "use its output channels' axis"
            )
    readers = node.outputs[0].consumers()
    if any(reader.op_type == "QuantizeLinear" for reader in readers) and not _is_shortcut(node):
        expected = all(_feeds_weighted(reader) for reader in readers)
        if not expected:
            yield _breach(node, "its own output is quantized", "quantize inputs of weighted operators only")


def _of_add(node: ir.Node) -> Iterator[LintFinding]:
    plain = [_behind(value) for value in node.inputs]
    quantized = [dequantizer(value) is not None for value in node.inputs]
    branch = shortcut(plain)
    if branch is not None and quantized[1 - branch]:
        yield _breach(node, "the branch of its convolution is quantized", "quantize the shortcut alone")


def _is_shortcut(node: ir.Node) -> bool:
    """Return whether `node`'s quantized output goes to an Add as its shortcut."""
    for reader in node.outputs[0].consumers():
        for pair in reader.outputs[0].consumers() if reader.op_type == "QuantizeLinear" else ():
            for add in pair.outputs[0].consumers():
                plain = [_behind(value) for value in add.inputs]
                branch = shortcut(plain) if add.op_type == "Add" else None
                if branch is not None and plain[branch] is node.outputs[0]:
                    return True
    return False


def _feeds_weighted(quantizer: ir.Node) -> bool:
    """Return whether what `quantizer` makes is read by a weighted operator: its input, not only somebody's output."""
    pairs = quantizer.outputs[0].consumers() if quantizer.op_type == "QuantizeLinear" else ()
    return any(reader.op_type in _WEIGHTED for pair in pairs for reader in pair.outputs[0].consumers())


def _behind(value: ir.Value | None) -> ir.Value | None:
    """Return the float tensor that the Q and DQ before `value` stand for, or `value`."""
    pair = dequantizer(value)
    source = None if pair is None or pair.inputs[0] is None else pair.inputs[0].producer()
    return source.inputs[0] if source is not None and source.op_type == "QuantizeLinear" else value


def _floats(model: ir.Model) -> Iterator[LintFinding]:
    for node in model.graph:
        rule = _WEIGHTED.get(node.op_type)
        if rule is not None and dequantizer(node.inputs[rule.weight or 0]) is None:
            reason = "its weight is float: compress left it in float"
            mend = "see `skipped` in candidates.json for the reason"
            yield LintFinding(node.name or str(node.outputs[0].name), node.op_type, reason, mend, expected=True)


def _breach(node: ir.Node, reason: str, mend: str) -> LintFinding:
    return LintFinding(node.name or str(node.outputs[0].name), node.op_type, reason, mend, expected=False)

"""TensorRT's rules for explicit quantization, checked on the graph: no runtime is needed, and none was asked.

A breach is a finding that is not expected: the builder would refuse the graph or run the layer in float. What it takes
at a cost is in costs.py. Layers left in float are findings, too, and what stays float32, each with its reason.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edgeft.core.exporter import LintFinding
from edgeft.graph.load import load
from edgeft.quantize.placement import OpRule, OutputRule
from edgeft.quantize.plan import constant, shortcut
from edgeft_exporters.contract import dequantizer, float_by_choice, holds_quantized
from edgeft_exporters.tensorrt.costs import costs
from edgeft_exporters.tensorrt.float32 import PAIR, stay_float32
from edgeft_exporters.tensorrt.pixels import lower_pixels_
from edgeft_exporters.tensorrt.placement import PLACEMENT

_NUMBERS = "nothing, or look at the layer: its numbers are unusually large or small"
_TARGET = "quantize with --target tensorrt"
_TRANSPOSED = OpRule("ConvTranspose", (0,), OutputRule.FLOAT, weight=1, weight_axis=1, bias=2)
_WEIGHTED = {rule.op_type: rule for rule in (*PLACEMENT.rules, _TRANSPOSED)}
_FIRST_AXIS, _FIRST_HALF = 13, 19
"""Opsets: scales along an axis, scales in float16."""


def lint(graph: Path) -> tuple[LintFinding, ...]:
    """Return every breach, then every weighted operator that stays float.

    Raises:
        DataError: it is no ONNX model, or keeps weights in other files.
    """
    proto = load(graph)
    if not holds_quantized(proto):
        return (float_by_choice(proto),)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    lower_pixels_(model)
    return (*breaches(model), *costs(model), *_floats(model), *_wide(model))


def breaches(model: ir.Model) -> tuple[LintFinding, ...]:
    """Return where `model`, whose pixels are lowered, breaks a rule; a float graph has no Q/DQ pair to break one."""
    version = model.graph.opset_imports.get("", 0)
    return tuple(
        finding for node in model.graph for each in (_of_pixels(node), _breaches(node, version)) for finding in each
    )


def _breaches(node: ir.Node, version: int) -> Iterator[LintFinding]:
    match node.op_type:
        case "QuantizeLinear" | "DequantizeLinear":
            yield from _of_pair(node)
            yield from _of_scale(node, version)
        case "Add":
            yield from _of_add(node)
        case op_type if not _is_known(node, version):
            yield _breach(node, f"{op_type} is no operator of ONNX's", "build it with TensorRT's plugin by hand")
        case op_type if op_type in _WEIGHTED:
            yield from _of_weighted(node)


def _is_known(node: ir.Node, version: int) -> bool:
    return node.domain in {"", "ai.onnx"} and onnx.defs.has(node.op_type, version, "")


def _of_pixels(node: ir.Node) -> Iterator[LintFinding]:
    if node.op_type != "Cast" and any(value is not None and value.dtype == ir.DataType.UINT8 for value in node.inputs):
        yield _breach(node, "it reads uint8, which a Cast alone may", _TARGET)


def _of_pair(node: ir.Node) -> Iterator[LintFinding]:
    zero = constant(node.inputs[2]) if node.inputs[2:] else None
    if zero is None or zero.dtype != np.int8 or zero.any():
        found = "absent" if zero is None else f"{zero.dtype}, {'not ' if zero.any() else ''}all 0"
        yield _breach(node, f"its zero point must be int8 and 0, it is {found}", _TARGET)
    if node.op_type == "QuantizeLinear" and node.inputs[0] is not None:
        twins = [reader for reader in node.inputs[0].consumers() if reader.op_type == "QuantizeLinear"]
        if len(twins) > 1 and twins[0] is node:
            yield _breach(node, f"{len(twins)} QuantizeLinear read one tensor, one may", "share the first")


def _of_scale(node: ir.Node, version: int) -> Iterator[LintFinding]:
    scale = constant(node.inputs[1])
    zero = constant(node.inputs[2]) if node.inputs[2:] else None
    if scale is None:
        yield _breach(node, "its scale is computed", "use a constant")
        return
    if not (scale > 0).all():
        yield _breach(node, "a scale is 0 or negative", _TARGET)
    if zero is not None and zero.size != scale.size:
        yield _breach(node, f"it has {scale.size} scales and {zero.size} zero points", "use as many")
    if node.op_type == "QuantizeLinear" and scale.size > 1 and constant(node.inputs[0]) is None:
        yield _breach(node, f"an activation has {scale.size} scales", "use one scale for a tensor")
    needed = _FIRST_HALF if scale.dtype == np.float16 else _FIRST_AXIS if scale.size > 1 else 0
    if version < needed:
        yield _breach(node, f"opset {version} does not hold such scales", f"export at opset {needed} or later")


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


def _wide(model: ir.Model) -> Iterator[LintFinding]:
    """Yield what stays float32 because of its numbers; pixels, sums and the end of the network always do."""
    for node, stay in stay_float32(model).items():
        if stay.by_numbers and node.op_type not in PAIR:
            name = node.name or str(node.outputs[0].name)
            yield LintFinding(name, node.op_type, f"float32, not float16: {stay.reason}", _NUMBERS, expected=True)


def _breach(node: ir.Node, reason: str, mend: str) -> LintFinding:
    return LintFinding(node.name or str(node.outputs[0].name), node.op_type, reason, mend, expected=False)

"""Q/DQ pairs that TensorRT takes and that cost time or accuracy: the rules a graph may break and still be built.

    a non-weighted operator with integers in and floats out runs in float, and dequantizes first
    Concat with one scale for all that it joins and makes: its pairs vanish
    LayerNorm, Softmax and the products between computed tensors are left float
    fewer than 16 channels, or one row, keep integer units idle

Placed by edgeft no graph has one; a graph of another tool may.
"""

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from edgeft.core.exporter import LintFinding
from edgeft.quantize.plan import constant, gains_nothing, shortcut
from edgeft_exporters.contract import dequantizer
from edgeft_exporters.tensorrt.placement import PLACEMENT

_BOTH_OR_NONE: Final = frozenset({"AveragePool", "GlobalAveragePool", "Concat", "Mul"})
_FLOAT: Final = frozenset({"LayerNormalization", "RMSNormalization", "Softmax", "Gelu", "Erf", "Sigmoid", "Tanh"})


def costs(model: ir.Model) -> tuple[LintFinding, ...]:
    """Return where pairs of `model` cost more than they save."""
    return tuple(finding for node in model.graph for finding in _costs(node))


def _costs(node: ir.Node) -> Iterator[LintFinding]:
    fed = [dequantizer(value) for value in node.inputs if value is not None and constant(value) is None]
    integers = bool(fed) and all(pair is not None for pair in fed)
    made = [reader for reader in node.outputs[0].consumers() if reader.op_type == "QuantizeLinear"]
    match node.op_type:
        case op_type if op_type in _BOTH_OR_NONE and any(fed) and not (integers and made):
            yield _cost(
                node, "integers come in, floats go out: it runs in float", "quantize inputs and output, or none"
            )
        case "Concat" if integers and len({_scale(pair) for pair in (*fed, *made)}) > 1:
            yield _cost(node, "its inputs and output have different scales", "give them one scale")
        case op_type if op_type in _FLOAT and any(fed):
            yield _cost(node, "it is computed in float, and its input is quantized", "leave its input float")
        case "Add" if (branch := shortcut(node.inputs)) is not None and dequantizer(node.inputs[branch]) is None:
            yield from _of_add(node, branch)
        case "BatchNormalization" if (maker := _maker(node.inputs[0])) is not None and _is_quantized(maker):
            yield _cost(node, "it stands behind a quantized convolution", "fold it into the convolution first")
        case op_type if PLACEMENT.rule(op_type) is not None and integers:
            yield from _of_weighted(node, len(fed))


def _of_add(node: ir.Node, branch: int) -> Iterator[LintFinding]:
    other = _maker(node.inputs[1 - branch])
    if other is not None and _is_quantized(other):
        yield _cost(node, "its shortcut is float beside a quantized convolution", "quantize the shortcut")


def _of_weighted(node: ir.Node, computed: int) -> Iterator[LintFinding]:
    if computed > 1 and node.op_type == "MatMul" and not _has_weight(node):
        yield _cost(node, "both of its inputs are computed: the core of an attention", "leave it float")
        return
    pair = dequantizer(node.inputs[1])
    weight = None if pair is None else constant(pair.inputs[0])
    reason = None if weight is None else gains_nothing(node, weight.shape, PLACEMENT)
    if reason is not None:
        yield _cost(node, reason, "leave it float")


def _is_quantized(node: ir.Node) -> bool:
    return PLACEMENT.rule(node.op_type) is not None and dequantizer(node.inputs[0]) is not None


def _has_weight(node: ir.Node) -> bool:
    pair = dequantizer(node.inputs[1])
    return pair is not None and constant(pair.inputs[0]) is not None


def _maker(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _scale(pair: ir.Node | None) -> bytes | None:
    scale = None if pair is None else constant(pair.inputs[1])
    return None if scale is None else scale.tobytes()


def _cost(node: ir.Node, reason: str, mend: str) -> LintFinding:
    return LintFinding(node.name or str(node.outputs[0].name), node.op_type, reason, mend, expected=False)

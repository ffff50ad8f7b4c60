"""Counting unsafe pairs in the file that ships, not in what made it."""

import numpy as np
import onnx
import onnx_ir as ir

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.layout import weight_layout
from edgeft.quantize.pair_rule import unsafe_pairs
from edgeft.quantize.placement import Placement
from edgeft.quantize.plan import constant

_WEIGHTED = ("Conv", "MatMul", "Gemm", "MatMulInteger")


def count_unsafe_pairs(model: onnx.ModelProto) -> int:
    """Return how many weight pairs of `model`'s integer operators could saturate; 0 is the proof.

    Depthwise convolutions multiply without pairing and are left out.

    Args:
        model: a Q/DQ or dynamic graph; operators whose weight is float are left out.
    """
    total = 0
    for node in ir.from_proto(model).graph:
        if node.op_type not in _WEIGHTED:
            continue
        integers = _integer_weight(node)
        if integers is None or integers.dtype != np.int8:
            continue
        axis = 0 if node.op_type == "Conv" or node.attributes.get_int("transB", 0) == 1 else 1
        layout = weight_layout(node, integers.shape, axis)
        if not layout.depthwise:
            total += unsafe_pairs(layout.to_matrix(integers))
    return total


def proven_pairs(model: onnx.ModelProto, placement: Placement) -> int:
    """Return how many pairs of `model` are unsafe, where its target may saturate after making sure that none is.

    Raises:
        QuantizationError: the target's kernels may saturate and a pair is unsafe.
    """
    unsafe = count_unsafe_pairs(model)
    if placement.saturating_pairs and unsafe:
        raise QuantizationError(f"{unsafe} weight pairs can saturate on CPUs without VNNI; this is a bug, report it")
    return unsafe


def _integer_weight(node: ir.Node) -> np.ndarray | None:
    """Return the integers of input 1 or behind the DQ that feeds it, or None."""
    value = node.inputs[1]
    if node.op_type == "MatMulInteger":
        return constant(value)
    producer = None if value is None else value.producer()
    return constant(producer.inputs[0]) if producer is not None and producer.op_type == "DequantizeLinear" else None

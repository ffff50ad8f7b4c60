"""Weights in 4 or 8 bits, one scale for each block of a column; activations stay float: a small file, little error.

    W[k, o] = q[k, o] * s[k // block, o],   k along the reduction        DequantizeLinear(axis 0, block_size), opset 21

onnxruntime keeps the integers in memory and multiplies by them (MatMulNBits). Scales are searched by weighted error, a
block at a time; then the column loop of gptq.py, on E[x x^T] of the float graph's inputs, passes rounding errors on.
"""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from edgeft.core.events import EventSink, Progress, ignore
from edgeft.graph.opset import at_least
from edgeft.quantize.affine import SMALLEST_SCALE, Doubles, Floats, Integers, QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.embeddings import quantize_embeddings_
from edgeft.quantize.gptq import output_error, pass_errors_on
from edgeft.quantize.insert import add_initializer_
from edgeft.quantize.placement import Placement
from edgeft.quantize.plan import Skip, refuse_quantized
from edgeft.quantize.products import Product, find_products, input_statistics
from edgeft.quantize.rows import Rows

_OPSET = 21
"""The first with a block size on DequantizeLinear."""
_LIMITS = {4: (-8, 7), 8: (-127, 127)}
_SHRINKS = tuple(step / 20 for step in range(20, 9, -1))
"""A block's scale, relative to the one that its largest weight asks for."""


@dataclass(frozen=True, slots=True)
class WeightOnlyMethod:
    """How weights are chosen.

    Args:
        bits: 4 or 8.
        images: how many calibration inputs tell what a weight's error costs.
        block: weights that share a scale; a power of two, at least 16.
    """

    bits: int
    images: int
    block: int = 32

    @property
    def label(self) -> str:
        """What was done."""
        return f"weights_int{self.bits}_block{self.block}+gptq"

    @property
    def precision(self) -> str:
        """What the candidate is called."""
        return f"int{self.bits}"


@dataclass(frozen=True, slots=True)
class BlockMatrix:
    """Integers [O, K] as float64, and their scales, float32 [O, ceil(K / block)]."""

    values: Doubles
    scale: Floats
    block: int

    @property
    def real(self) -> Doubles:
        """What the integers stand for, float64 [O, K]."""
        return self.values * _by_column(self.scale, self.block, self.values.shape[1])


def quantize_weights_only(
    float_model: onnx.ModelProto,
    placement: Placement,
    rows: Rows,
    method: WeightOnlyMethod,
    *,
    execution: Execution,
    emit: EventSink = ignore,
) -> tuple[onnx.ModelProto, tuple[Skip, ...]]:
    """Return `float_model` with block-wise integer weights, and the operators whose weights stay float.

    Args:
        float_model: a float graph; left as it is.
        placement: of the target.
        rows: calibration inputs; the first `method.images` are used.
        method: how.
        execution: threads and batch.
        emit: where progress goes.

    Raises:
        QuantizationError: the graph is already quantized, has no product with constant weights, there are no inputs, or
            an activation is not finite.
        DataError: the graph cannot be brought to opset 21.
    """
    model = ir.from_proto(at_least(float_model, _OPSET))
    ShapeInferencePass()(model)
    refuse_quantized(model.graph)
    no_kernel = f"{placement.target} has no kernel with {method.bits}-bit weights and float inputs for"
    products, skips = find_products(model.graph, placement, placement.block_weights, no_kernel)
    if not products:
        reasons = "; ".join(f"{skip.layer}: {skip.reason}" for skip in skips[:3]) or "it has no MatMul"
        raise QuantizationError(
            f"no weights of this graph can be stored in {method.bits} bits for {placement.target!r} ({reasons})",
            hint="use a static method, e.g. --method gptq, or --method fp16",
        )
    tensors = list(dict.fromkeys(str(product.input.name) for product in products))
    found = input_statistics(float_model, tensors, rows, method.images, execution, emit)
    for done, product in enumerate(products, start=1):
        integers = round_blocks(product.matrix[0], found[str(product.input.name)].moment, method.bits, method.block)
        _replace_weight_(model, product, integers, method.bits)
        emit(Progress("round weights", done, len(products), str(product.node.name)))
    quantize_embeddings_(model)
    RemoveUnusedNodesPass()(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    return proto, skips


def round_blocks(matrix: Doubles, moment: Doubles, bits: int, block: int) -> BlockMatrix:
    """Return block-wise integers with little expected output error, e^T moment e for each output.

    Args:
        matrix: float64 [O, K] weights.
        moment: float64 [K, K], E[x x^T] of the inputs.
        bits: 4 or 8.
        block: columns that share a scale.
    """
    low, high = _LIMITS[bits]
    start = _search(matrix, np.diagonal(moment), block, (low, high))
    steps = start.scale.astype(np.float64)

    def nearest(k: int, column: Doubles, _: Doubles) -> tuple[Doubles, Doubles]:
        scale = steps[None, :, k // block]
        return np.clip(np.rint(column / scale), low, high), scale

    found = BlockMatrix(pass_errors_on(matrix[None], moment[None], nearest)[0], start.scale, block)
    worse = output_error(matrix, found.real, moment) > output_error(matrix, start.real, moment)
    return BlockMatrix(np.where(worse[:, None], start.values, found.values), start.scale, block)


def _search(matrix: Doubles, squares: Doubles, block: int, limits: tuple[int, int]) -> BlockMatrix:
    """Return integers to nearest, with the scale of each block that costs least."""
    outputs, columns = matrix.shape
    low, high = limits
    starts = np.arange(0, columns, block)
    weights = np.broadcast_to(squares + 1e-6 * (squares.mean() + np.finfo(np.float64).tiny), matrix.shape)
    largest = np.maximum.reduceat(np.abs(matrix), starts, axis=1)
    best = np.full(largest.shape, np.inf)
    scales, values = np.ones(largest.shape, np.float32), np.zeros((outputs, columns))
    for shrink in _SHRINKS:
        wanted = np.where(largest > 0, largest / high * shrink, 1.0)
        scale = np.maximum(wanted, SMALLEST_SCALE).astype(np.float32)
        steps = _by_column(scale, block, columns)
        candidate = np.clip(np.rint(matrix / steps), low, high)
        error = np.add.reduceat(weights * (candidate * steps - matrix) ** 2, starts, axis=1)
        better = error < best
        best, scales = np.where(better, error, best), np.where(better, scale, scales)
        values = np.where(np.repeat(better, block, axis=1)[:, :columns], candidate, values)
    return BlockMatrix(values, scales, block)


def _by_column(scale: Floats, block: int, columns: int) -> Doubles:
    """Return the scale of each weight, float64 [O, K]."""
    return np.repeat(scale.astype(np.float64), block, axis=1)[:, :columns]


def _replace_weight_(model: ir.Model, product: Product, integers: BlockMatrix, bits: int) -> None:
    """Make `product` read its weight through a DequantizeLinear."""
    prefix = str(product.node.outputs[0].name)
    stored: Integers = integers.values.T.astype(np.int8)
    packed = stored.astype(ml_dtypes.int4) if bits == 4 else stored  # noqa: PLR2004 - bits
    weight = add_initializer_(model, f"{prefix}::weight::q", np.ascontiguousarray(packed))
    scale = add_initializer_(model, f"{prefix}::weight::scale", np.ascontiguousarray(integers.scale.T))
    attributes = {"axis": 0, "block_size": integers.block}
    dequantize = ir.node("DequantizeLinear", [weight, scale], attributes, name=f"{prefix}::weight::DQ")
    dequantize.outputs[0].name = f"{prefix}::weight::DQ::y"
    model.graph.insert_before(product.node, dequantize)
    product.node.replace_input_with(product.rule.weight or 0, dequantize.outputs[0])

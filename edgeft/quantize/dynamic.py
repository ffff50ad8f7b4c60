"""Dynamic int8: weights are integers in the file, activations become integers as the model runs.

    x_q, s_x, z_x = DynamicQuantizeLinear(x / s)                uint8, one scale for the whole tensor
    y             = MatMulInteger(x_q, W_q, z_x) * (s_x * s_W)  int8 weights, one scale per output channel

For transformers: their activations have outliers that no fixed range serves, and attention, LayerNormalization and
GELU stay float anyway. The division by s moves outliers of single channels into the weights (smooth.py); it costs one
Mul for each tensor. W_q is chosen under the pair rule, scale search and GPTQ included, on the float graph's inputs:

    error = E |W_q x - W s x|^2 = tr(e E[x x^T] e^T),      e = W_q - W s,  x smoothed

The raw moment, not the covariance: there is no bias to put the mean right. Large embedding tables are stored in 8 bits,
too (embeddings.py).
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from edgeft.core.events import EventSink, Progress, ignore
from edgeft.quantize.affine import SMALLEST_SCALE, Doubles, Floats, QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.embeddings import quantize_embeddings_
from edgeft.quantize.gptq import gptq
from edgeft.quantize.insert import add_initializer_
from edgeft.quantize.placement import OpRule, Placement
from edgeft.quantize.plan import Skip, refuse_quantized
from edgeft.quantize.products import Product, find_products, input_statistics
from edgeft.quantize.proof import proven_pairs
from edgeft.quantize.rows import Rows
from edgeft.quantize.smooth import WORTH_A_MUL, smoothing
from edgeft.quantize.smoothed import divided_
from edgeft.quantize.weights import IntegerMatrix, search_scales

_Source: TypeAlias = tuple[ir.Value, ir.Value, ir.Value]
"""Integers, scale and zero point of a tensor."""


@dataclass(frozen=True, slots=True)
class DynamicMethod:
    """How weights are chosen.

    Args:
        images: how many calibration inputs tell what a weight's error costs.
    """

    images: int

    @property
    def precision(self) -> str:
        """What the candidate is called."""
        return "int8"

    @property
    def label(self) -> str:
        """What was done."""
        return "dynamic+smooth+pair_safe+gptq+embeddings"


@dataclass(frozen=True, slots=True)
class DynamicResult:
    """A graph with integer products, the operators left in float, and its unsafe pairs."""

    model: onnx.ModelProto
    skips: tuple[Skip, ...]
    unsafe_pairs: int


def quantize_dynamic(
    float_model: onnx.ModelProto,
    placement: Placement,
    rows: Rows,
    method: DynamicMethod,
    *,
    execution: Execution,
    emit: EventSink = ignore,
) -> DynamicResult:
    """Return `float_model` with integer products that quantize their inputs as they run.

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
    """
    model = ir.from_proto(float_model)
    ShapeInferencePass()(model)
    refuse_quantized(model.graph)
    no_kernel = f"{placement.target} has no integer kernel that quantizes its input as it runs for"
    products, skips = find_products(model.graph, placement, placement.dynamic, no_kernel)
    if not products:
        reasons = "; ".join(f"{skip.layer}: {skip.reason}" for skip in skips[:3]) or "it has no MatMul and no Gemm"
        raise QuantizationError(
            f"nothing in this graph can be quantized dynamically for {placement.target!r} ({reasons})",
            hint="use a static method, e.g. --method mse (in a recipe: compress.method)",
        )
    readers: dict[str, list[Product]] = {}
    for product in products:
        readers.setdefault(str(product.input.name), []).append(product)
    found = input_statistics(float_model, list(readers), rows, method.images, execution, emit)
    done = 0
    for tensor, statistics in found.items():
        matrices = [product.matrix for product in readers[tensor]]
        s = smoothing(
            np.concatenate([matrix[0] for matrix in matrices]),
            np.diagonal(statistics.moment),
            statistics.low,
            statistics.high,
            least_gain=WORTH_A_MUL,
        )
        moment = statistics.moment / np.outer(s, s)
        first = readers[tensor][0]
        source = _quantize_(model, first.node, first.input, s)
        for product, matrix in zip(readers[tensor], matrices, strict=True):
            integers = _integers(matrix * s.astype(np.float64), moment, pair_safe=placement.saturating_pairs)
            _replace_(model, product, integers, source)
            done += 1
            emit(Progress("round weights", done, len(products), str(product.node.name)))
    quantize_embeddings_(model)
    RemoveUnusedNodesPass()(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    return DynamicResult(proto, skips, proven_pairs(proto, placement))


def is_transformer(model: onnx.ModelProto) -> bool:
    """Return whether most of `model`'s Conv and MatMul weights are MatMul's: a transformer, not a convolutional net.

    A Gemm tells nothing: the last layer of either is one.
    """
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    counted = {"Conv": 0, "MatMul": 0}
    for node in model.graph.node:
        if node.op_type in counted:
            counted[node.op_type] += sizes.get(node.input[1], 0)
    return counted["MatMul"] > counted["Conv"]


def _integers(matrix: Doubles, moment: Doubles, *, pair_safe: bool) -> IntegerMatrix:
    """Return the integers [1, O, K] with the least expected output error."""
    floor = np.full(matrix.shape[:2], SMALLEST_SCALE)
    start = search_scales(matrix, np.diagonal(moment)[None], floor, pair_safe=pair_safe, search=True)
    return gptq(matrix, moment[None], start, pair_safe=pair_safe)


def _quantize_(model: ir.Model, before: ir.Node, value: ir.Value, s: Floats) -> _Source:
    """Quantize value / s as the model runs, ahead of `before`; all readers share the integers."""
    source = divided_(model, value, before, s)
    quantize = ir.node("DynamicQuantizeLinear", [source], num_outputs=3, name=f"{value.name}::Q")
    for result, suffix in zip(quantize.outputs, ("q", "scale", "zero_point"), strict=True):
        result.name = f"{value.name}::{suffix}"
    model.graph.insert_before(before, quantize)
    q, scale, zero_point = quantize.outputs
    return q, scale, zero_point


def _replace_(model: ir.Model, product: Product, integers: IntegerMatrix, source: _Source) -> None:
    """Put the integer product in the place of the float one."""
    node, output = product.node, product.node.outputs[0]
    prefix = str(output.name)
    q, scale, zero_point = source
    weight = add_initializer_(model, f"{prefix}::weight::q", np.ascontiguousarray(integers.values[0].T))
    weight_scale = add_initializer_(model, f"{prefix}::weight::scale", integers.scale.reshape(-1))
    name = node.name or prefix
    multiplied = ir.node("MatMulInteger", [q, weight, zero_point], name=f"{name}::integer")
    real = ir.node("Cast", [multiplied.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{name}::cast")
    step = ir.node("Mul", [scale, weight_scale], name=f"{name}::step")
    last = ir.node("Mul", [real.outputs[0], step.outputs[0]], name=name)
    added = [multiplied, real, step, last]
    bias = _bias(node, product.rule)
    if bias is not None:
        last.name = f"{name}::scaled"
        added.append(last := ir.node("Add", [last.outputs[0], bias], name=name))
    for each in added:
        each.outputs[0].name = f"{each.name}::y"
    last.outputs[0].shape, last.outputs[0].type = output.shape, output.type
    ir.convenience.replace_nodes_and_values(model.graph, node, [node], added, [output], [last.outputs[0]])


def _bias(node: ir.Node, rule: OpRule) -> ir.Value | None:
    index = rule.bias
    return node.inputs[index] if index is not None and index < len(node.inputs) else None

"""Products with constant weights, and what is known of their inputs: where dynamic and weight-only int8 start from."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from edgeft.core.events import EventSink, ignore
from edgeft.quantize.affine import Doubles, Floats, QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.layout import weight_layout
from edgeft.quantize.placement import OpRule, Placement
from edgeft.quantize.plan import Skip, constant, foreign_reason, weight_refusal
from edgeft.quantize.rows import First, Rows, tensors_of

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class Product:
    """A MatMul or Gemm with constant weights."""

    node: ir.Node
    rule: OpRule
    weight: Floats

    @property
    def matrix(self) -> Doubles:
        """The weight as [1, O, K]."""
        axis = self.rule.channel_axis(transposed=bool(self.node.attributes.get_int("transB", 0)))
        layout = weight_layout(self.node, self.weight.shape, axis or 0)
        return layout.to_matrix(self.weight).astype(np.float64)

    @property
    def input(self) -> ir.Value:
        """The tensor that it multiplies, [..., K]."""
        value = self.node.inputs[0]
        if value is None:
            message = f"{self.node.name} has no input"
            raise ValueError(message)
        return value


@dataclass(frozen=True, slots=True)
class InputStatistics:
    """Of a tensor [..., K]: E[x x^T], float64 [K, K], and the least and largest value of each channel, float32 [K]."""

    moment: Doubles
    low: Floats
    high: Floats


def find_products(
    nodes: Iterable[ir.Node], placement: Placement, kinds: Collection[str], no_kernel: str
) -> tuple[tuple[Product, ...], tuple[Skip, ...]]:
    """Return the products of `nodes` in order, and the operators with weights that are none, each with its reason.

    Args:
        nodes: of the graph.
        placement: of the target.
        kinds: the operator types that count.
        no_kernel: why others do not, to be read before the operator's type.
    """
    products, skips = [], []
    for node in nodes:
        if node.op_type not in _WEIGHTED:
            continue
        found = _examine(node, placement, kinds, no_kernel)
        if isinstance(found, str):
            skips.append(Skip(node.name or str(node.outputs[0].name), found))
        else:
            products.append(found)
    return tuple(products), tuple(skips)


def input_statistics(
    model: onnx.ModelProto, tensors: list[str], rows: Rows, count: int, execution: Execution, emit: EventSink = ignore
) -> dict[str, InputStatistics]:
    """Return the statistics of each of `tensors` [..., K] over the first `count` rows.

    One pass; memory depends on the widths of the tensors, not on the number of rows.

    Raises:
        QuantizationError: there are no rows, or a value is NaN or infinite.
    """
    sums: dict[str, Doubles] = {}
    lows: dict[str, Floats] = {}
    highs: dict[str, Floats] = {}
    seen: dict[str, int] = dict.fromkeys(tensors, 0)
    for batch in tensors_of(model, tensors, First(rows, count), execution, emit):
        for tensor, found in zip(tensors, batch, strict=True):
            x = found.reshape(-1, found.shape[-1])
            product = (x.T @ x).astype(np.float64)
            if not np.isfinite(product).all():
                raise QuantizationError(f"activation {tensor!r} holds NaN or Inf", hint="check the calibration data")
            sums[tensor] = sums[tensor] + product if tensor in sums else product
            lows[tensor] = np.minimum(lows.get(tensor, np.float32(np.inf)), x.min(axis=0))
            highs[tensor] = np.maximum(highs.get(tensor, np.float32(-np.inf)), x.max(axis=0))
            seen[tensor] += len(x)
    return {name: InputStatistics(total / seen[name], lows[name], highs[name]) for name, total in sums.items()}


def _examine(node: ir.Node, placement: Placement, kinds: Collection[str], no_kernel: str) -> Product | str:
    """Return `node` as a product with constant weights, or why it is none."""
    if (foreign := foreign_reason(node)) is not None:
        return foreign
    rule = placement.rule(node.op_type)
    if rule is None or rule.weight is None or node.op_type not in kinds:
        return f"{no_kernel} {node.op_type}"
    weight = constant(node.inputs[rule.weight])
    if weight is None:
        return "its weights are computed, not constant"
    reason = weight_refusal(node, weight)
    return reason if reason is not None else Product(node, rule, weight)

"""QuantizeLinear and DequantizeLinear as fake quantization that gradients pass.

    q = round(clip(x / s, qmin - z, qmax - z)) + z            x' = (q - z) s

Rounding has the straight-through gradient 1 (Bengio et al. 2013). Learned scales need nothing else: the pair has

    dx'/ds = round(x / s) - x / s   inside,    qmin - z or qmax - z   outside,        dx'/dx = 1 inside, 0 outside

which is eq. 3 and 5 of Esser et al. 2020 (LSQ). Clipping before rounding gives the same integers as ONNX, which clips
after it, because the bounds are integers. Between a Q and its DQ the integers are held in float32, which carries the
gradient and holds every integer below 2^24 exactly.
"""

from typing import Any, Final

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import to_torch_dtype
from torch import Tensor
from torch.autograd import Function

from edgeft.graph.torch_ops.operator import Operators, unsupported

_HELD_EXACTLY = frozenset({torch.uint8, torch.int8, torch.uint16, torch.int16})


class _Round(Function):
    """Round half to even, with gradient 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - torch gives its context no type
        del ctx
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ANN401 - torch gives its context no type
        del ctx
        return grads[0]


def _quantize_linear(node: ir.Node, x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
    """Return the integers of `x`, held in float32; `scale` is per tensor, per axis or per block."""
    dtype = _integer_type(node) if zero_point is None else zero_point.dtype
    if dtype not in _HELD_EXACTLY:
        raise unsupported(node, f"type {dtype}")
    limits = torch.iinfo(dtype)
    wide = _along(node, scale, x).to(torch.float32)
    zero = torch.zeros((), device=x.device) if zero_point is None else _along(node, zero_point, x).to(torch.float32)
    scaled = torch.clamp(x.to(torch.float32) / wide, limits.min - zero, limits.max - zero)
    rounded: Tensor = _Round.apply(scaled)
    return rounded + zero


def _dequantize_linear(node: ir.Node, q: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
    """Return what the integers `q`, of an integer type or held in float32, stand for."""
    wide = _along(node, scale, q)
    if zero_point is None:
        return q.to(wide.dtype) * wide
    held = q if q.is_floating_point() else q.to(torch.int32)
    zero = _along(node, zero_point, q).to(held.dtype)
    return (held - zero).to(wide.dtype) * wide


def _integer_type(node: ir.Node) -> torch.dtype:
    dtype = ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)
    try:
        return to_torch_dtype(dtype)
    except TypeError as error:
        raise unsupported(node, f"type {dtype.name}") from error


def _along(node: ir.Node, values: Tensor, x: Tensor) -> Tensor:
    """Return the parameters `values` in a shape that broadcasts against `x`."""
    if values.numel() == 1:
        return values.reshape(())
    axis = node.attributes.get_int("axis", 1) % x.dim()
    block = node.attributes.get_int("block_size", 0)
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape)


OPERATORS: Final[Operators] = {"DequantizeLinear": _dequantize_linear, "QuantizeLinear": _quantize_linear}

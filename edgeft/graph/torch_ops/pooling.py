"""Pools. Padding is written out, so that asymmetric padding and `ceil_mode` need no cases of their own.

average = sum of the window / number of its elements that count
        = mean(padded x) / mean(padded ones), since every window has as many elements as any other
"""

from collections.abc import Callable
from typing import Final

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from edgeft.graph.torch_ops.operator import Operators, unsupported
from edgeft.graph.torch_ops.windows import Windows, windows

_AVERAGES: Final[dict[int, Callable[..., Tensor]]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}
_MAXIMA: Final[dict[int, Callable[..., Tensor]]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}


def _average_pool(node: ir.Node, x: Tensor) -> Tensor:
    """Average each window of x [N, C, ...]; padding counts where `count_include_pad` is 1."""
    where, average = _windows(node, x), _AVERAGES[x.dim() - 2]
    if any(dilation != 1 for dilation in where.dilations):
        raise unsupported(node, "dilations")
    mean = average(where.pad(x, 0.0), where.kernel, where.strides)
    if where.symmetric and not any(where.begin):
        return mean
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    if node.attributes.get_int("count_include_pad", 0):
        own = Windows(where.kernel, where.strides, where.dilations, where.begin, where.end, (0,) * len(where.kernel))
        ones = torch.ones_like(own.pad(ones, 1.0))
        none = (0,) * len(where.kernel)
        where = Windows(where.kernel, where.strides, where.dilations, none, none, where.extra)
    return mean / average(where.pad(ones, 0.0), where.kernel, where.strides)


def _max_pool(node: ir.Node, x: Tensor) -> Tensor:
    """Return the maximum of each window of x [N, C, ...], floats or integers."""
    where = _windows(node, x)
    lowest = -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    padded, dtype = where.pad(x, lowest), x.dtype
    # torch has no kernel for 8-bit maxima; float32 holds 8-bit integers exactly
    if not dtype.is_floating_point:
        padded = padded.to(torch.float32)
    return _MAXIMA[x.dim() - 2](padded, where.kernel, where.strides, 0, where.dilations).to(dtype)


def _global_average_pool(node: ir.Node, x: Tensor) -> Tensor:
    del node
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def _global_max_pool(node: ir.Node, x: Tensor) -> Tensor:
    del node
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


def _windows(node: ir.Node, x: Tensor) -> Windows:
    if x.dim() - 2 not in _MAXIMA:
        raise unsupported(node, f"{x.dim() - 2} spatial axes")
    return windows(node, x.shape[2:], node.attributes.get_ints("kernel_shape", ()))


OPERATORS: Final[Operators] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "MaxPool": _max_pool,
}

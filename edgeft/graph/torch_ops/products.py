"""Convolutions and matrix products."""

from collections.abc import Callable
from typing import Final

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from edgeft.graph.torch_ops.operator import Operators, unsupported
from edgeft.graph.torch_ops.windows import windows

_CONVOLUTIONS: Final[dict[int, Callable[..., Tensor]]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}


def _conv(node: ir.Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve x [N, C, ...] with weight [O, C / group, ...]; padding may differ between the two ends of an axis."""
    where = windows(node, x.shape[2:], weight.shape[2:])
    convolve = _CONVOLUTIONS.get(len(where.kernel))
    if convolve is None:
        raise unsupported(node, f"{len(where.kernel)} spatial axes")
    source, padding = (x, where.begin) if where.symmetric else (where.pad(x, 0.0), 0)
    return convolve(
        *(source, weight, bias, where.strides, padding, where.dilations, node.attributes.get_int("group", 1))
    )


def _matmul(node: ir.Node, a: Tensor, b: Tensor) -> Tensor:
    del node
    return torch.matmul(a, b)


def _gemm(node: ir.Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Return alpha a b + beta c, a and b transposed where the node says so."""
    get = node.attributes
    alpha, beta = get.get_float("alpha", 1.0), get.get_float("beta", 1.0)
    a, b = a.T if get.get_int("transA", 0) else a, b.T if get.get_int("transB", 0) else b
    if c is None:
        return alpha * (a @ b)
    return torch.addmm(c, a, b, alpha=alpha, beta=beta)


OPERATORS: Final[Operators] = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}

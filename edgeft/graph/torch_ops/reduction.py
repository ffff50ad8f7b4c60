"""Reductions over axes."""

from collections.abc import Callable
from typing import Final

import onnx_ir as ir
import torch
from torch import Tensor

from edgeft.graph.torch_ops.operator import Operator, Operators, axes

_Reduction = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _reduction(function: _Reduction, *, unreduced: Callable[[Tensor], Tensor] = lambda x: x) -> Operator:
    """Return the operator that applies `function(x, axes, keepdims)`.

    Args:
        function: over at least one axis.
        unreduced: what is left to do where no axis is reduced.
    """

    def operator(node: ir.Node, x: Tensor, given: Tensor | None = None) -> Tensor:
        chosen = axes(node, given)
        if not chosen and bool(node.attributes.get_int("noop_with_empty_axes", 0)):
            return unreduced(x)
        chosen = chosen or tuple(range(x.dim()))
        keep = node.attributes.get_int("keepdims", 1) == 1
        return function(x, chosen, keep) if chosen else unreduced(x)

    return operator


def _sum(x: Tensor, dims: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001 - the shape of every reduction here
    return torch.sum(x, dims, keepdim=keep, dtype=x.dtype)


def _prod(x: Tensor, dims: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001 - the shape of every reduction here
    """Multiply one axis at a time, from the last, which is all that torch offers."""
    for dim in sorted((dim % x.dim() for dim in dims), reverse=True):
        x = torch.prod(x, dim, keepdim=keep, dtype=x.dtype)
    return x


def _l1(x: Tensor, dims: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001 - the shape of every reduction here
    return _sum(x.abs(), dims, keep)


def _sum_square(x: Tensor, dims: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001 - the shape of every reduction here
    return _sum(x * x, dims, keep)


def _l2(x: Tensor, dims: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001 - the shape of every reduction here
    norm: Tensor = torch.linalg.vector_norm(x, dim=dims, keepdim=keep)
    return norm


def _log_sum(x: Tensor, dims: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001 - the shape of every reduction here
    return torch.log(_sum(x, dims, keep))


OPERATORS: Final[Operators] = {
    "ReduceL1": _reduction(_l1, unreduced=torch.abs),
    "ReduceL2": _reduction(_l2, unreduced=torch.abs),
    "ReduceLogSum": _reduction(_log_sum, unreduced=torch.log),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceProd": _reduction(_prod),
    "ReduceSum": _reduction(_sum),
    "ReduceSumSquare": _reduction(_sum_square, unreduced=torch.square),
}

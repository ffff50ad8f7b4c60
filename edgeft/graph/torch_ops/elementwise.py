"""Arithmetic, comparisons and logic, element by element, with numpy's broadcasting (which is torch's)."""

from collections.abc import Callable
from functools import reduce
from typing import Final

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import to_torch_dtype
from torch import Tensor

from edgeft.graph.torch_ops.operator import Operator, Operators, unsupported


def _plain(function: Callable[..., Tensor]) -> Operator:
    """Return `function` as an operator without attributes."""

    def operator(node: ir.Node, *inputs: Tensor) -> Tensor:
        del node
        return function(*inputs)

    return operator


def _div(node: ir.Node, a: Tensor, b: Tensor) -> Tensor:
    """Divide; integers are truncated towards zero."""
    del node
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _mod(node: ir.Node, a: Tensor, b: Tensor) -> Tensor:
    """Remainder with the divisor's sign, or with the dividend's where `fmod` is 1."""
    return torch.fmod(a, b) if node.attributes.get_int("fmod", 0) else torch.remainder(a, b)


def _pow(node: ir.Node, base: Tensor, exponent: Tensor) -> Tensor:
    """Raise to a power; the result has the base's type."""
    del node
    return torch.pow(base, exponent).to(base.dtype)


def _max(node: ir.Node, *inputs: Tensor) -> Tensor:
    del node
    return reduce(torch.maximum, inputs)


def _min(node: ir.Node, *inputs: Tensor) -> Tensor:
    del node
    return reduce(torch.minimum, inputs)


def _sum(node: ir.Node, *inputs: Tensor) -> Tensor:
    del node
    return reduce(torch.add, inputs)


def _mean(node: ir.Node, *inputs: Tensor) -> Tensor:
    return _sum(node, *inputs) / len(inputs)


def _is_inf(node: ir.Node, x: Tensor) -> Tensor:
    negative, positive = (node.attributes.get_int(f"detect_{sign}", 1) for sign in ("negative", "positive"))
    none = torch.zeros_like(x, dtype=torch.bool)
    return (torch.isneginf(x) if negative else none) | (torch.isposinf(x) if positive else none)


def _clip(node: ir.Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Clip to [low, high]; high where low > high. The gradient passes where low <= x <= high, as in torch."""
    del node
    return x if low is None and high is None else torch.clamp(x, low, high)


def _identity(node: ir.Node, x: Tensor) -> Tensor:
    del node
    return x


def _cast(node: ir.Node, x: Tensor) -> Tensor:
    """Change the type; floats are truncated towards zero on their way to integers."""
    return x.to(_torch_dtype(node, ir.DataType(node.attributes.get_int("to", 0))))


def _cast_like(node: ir.Node, x: Tensor, like: Tensor) -> Tensor:
    del node
    return x.to(like.dtype)


def _dropout(node: ir.Node, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> Tensor:
    """Return `x`: dropout at inference."""
    del ratio
    if training is not None and bool(training):
        raise unsupported(node, "training_mode = True")
    return x


def _torch_dtype(node: ir.Node, dtype: ir.DataType) -> torch.dtype:
    try:
        return to_torch_dtype(dtype)
    except TypeError as error:
        raise unsupported(node, f"type {dtype.name}") from error


_PLAIN: Final[dict[str, Callable[..., Tensor]]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "And": torch.logical_and,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Where": torch.where,
    "Xor": torch.logical_xor,
}

OPERATORS: Final[Operators] = {
    **{name: _plain(function) for name, function in _PLAIN.items()},
    "Cast": _cast,
    "CastLike": _cast_like,
    "Clip": _clip,
    "Div": _div,
    "Dropout": _dropout,
    "Identity": _identity,
    "IsInf": _is_inf,
    "Max": _max,
    "Mean": _mean,
    "Min": _min,
    "Mod": _mod,
    "Pow": _pow,
    "Sum": _sum,
}

"""Operators that arrange values without looking at them: reshapes, transposes, concatenation, padding."""

from typing import Final

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from edgeft.graph.torch_ops.operator import Operators, Result, axes, unsupported

_NUMPY_MODES: Final = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _reshape(node: ir.Node, x: Tensor, shape: Tensor) -> Tensor:
    """Reshape; 0 copies the input's size unless `allowzero` is 1, -1 stands for what is left."""
    target = ints(shape)
    if not node.attributes.get_int("allowzero", 0):
        target = [x.shape[index] if size == 0 else size for index, size in enumerate(target)]
    return x.reshape(target)


def _flatten(node: ir.Node, x: Tensor) -> Tensor:
    """Merge the axes before `axis`, and those from it on."""
    axis = node.attributes.get_int("axis", 1)
    first = x.shape[: axis + x.dim() if axis < 0 else axis].numel()
    return x.reshape(first, x.numel() // first if first else 0)


def _squeeze(node: ir.Node, x: Tensor, given: Tensor | None = None) -> Tensor:
    chosen = axes(node, given)
    return x.squeeze(chosen) if chosen or given is not None else x.squeeze()


def _unsqueeze(node: ir.Node, x: Tensor, given: Tensor | None = None) -> Tensor:
    """Insert axes of size 1; the axes count in the result."""
    chosen = axes(node, given)
    for axis in sorted(axis % (x.dim() + len(chosen)) for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def _transpose(node: ir.Node, x: Tensor) -> Tensor:
    return x.permute(tuple(node.attributes.get_ints("perm", tuple(reversed(range(x.dim()))))))


def _concat(node: ir.Node, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, node.attributes.get_int("axis", 0))


def _split(node: ir.Node, x: Tensor, sizes: Tensor | None = None) -> Result:
    """Split along `axis` into parts of the sizes given, or into equal parts of which the last may be smaller."""
    axis = node.attributes.get_int("axis", 0)
    if sizes is not None:
        return tuple(torch.split(x, list(ints(sizes)), axis))
    parts, size = len(node.outputs), x.shape[axis]
    each = -(-size // parts)
    whole = [min(each, size - each * index) for index in range(parts)]
    return tuple(torch.split(x, whole, axis))


def _expand(node: ir.Node, x: Tensor, shape: Tensor) -> Tensor:
    """Broadcast `x` and `shape` to each other."""
    del node
    both = torch.broadcast_shapes(x.shape, ints(shape))  # type: ignore[no-untyped-call] # torch does not type it
    return x.broadcast_to(both)


def _tile(node: ir.Node, x: Tensor, repeats: Tensor) -> Tensor:
    del node
    return x.repeat(ints(repeats))


def _pad(node: ir.Node, x: Tensor, pads: Tensor, value: Tensor | None = None, given: Tensor | None = None) -> Tensor:
    """Pad, or crop where negative: with a constant, or with values of `x` picked as numpy.pad picks them."""
    mode, amounts = node.attributes.get_string("mode", "constant"), ints(pads)
    chosen = range(x.dim()) if given is None else [axis % x.dim() for axis in ints(given)]
    both = {axis: (amounts[i], amounts[i + len(chosen)]) for i, axis in enumerate(chosen)}
    if mode == "constant":
        flat = [amount for axis in reversed(range(x.dim())) for amount in both.get(axis, (0, 0))]
        return functional.pad(x, flat, value=0.0 if value is None else value.item())
    if mode not in _NUMPY_MODES:
        raise unsupported(node, f"mode = {mode!r}")
    for axis, (before, after) in both.items():
        x = x.index_select(axis, _picked(x, axis, (before, after), mode))
    return x


def _picked(x: Tensor, axis: int, amounts: tuple[int, int], mode: str) -> Tensor:
    """Return which indices of `axis` stand where, once it is padded by `amounts`."""
    grown = tuple(max(amount, 0) for amount in amounts)
    picked = np.pad(np.arange(x.shape[axis]), grown, mode=_NUMPY_MODES[mode])  # type: ignore[call-overload] # a checked string
    before, after = (max(-amount, 0) for amount in amounts)
    return torch.from_numpy(picked[before : len(picked) - after]).to(x.device)


def ints(values: Tensor) -> list[int]:
    """Return a small tensor of integers as a list."""
    return [int(value) for value in values.reshape(-1).tolist()]


OPERATORS: Final[Operators] = {
    "Concat": _concat,
    "Expand": _expand,
    "Flatten": _flatten,
    "Pad": _pad,
    "Reshape": _reshape,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}

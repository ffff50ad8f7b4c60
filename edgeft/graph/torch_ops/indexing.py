"""Operators that pick values by their place, and those that make or tell shapes."""

from typing import Final

import onnx_ir as ir
import torch
from torch import Tensor

from edgeft.graph.torch_ops.layout import ints
from edgeft.graph.torch_ops.operator import Operators


def _gather(node: ir.Node, x: Tensor, indices: Tensor) -> Tensor:
    """Pick slices along `axis`; negative indices count from the end."""
    axis = node.attributes.get_int("axis", 0) % x.dim()
    picked = x.index_select(axis, _positive(indices, x.shape[axis]).reshape(-1))
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_elements(node: ir.Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.attributes.get_int("axis", 0)
    return x.gather(axis, _positive(indices, x.shape[axis]))


def _gather_nd(node: ir.Node, x: Tensor, indices: Tensor) -> Tensor:
    """Pick slices by the index vectors in the last axis of `indices`, separately for each leading batch axis."""
    batch = x.shape[: node.attributes.get_int("batch_dims", 0)]
    count, depth = batch.numel(), indices.shape[-1]
    flat = x.reshape(count, *x.shape[len(batch) :])
    vectors = indices.reshape(count, -1, depth)
    places = [_positive(vectors[..., i], flat.shape[1 + i]) for i in range(depth)]
    rows = torch.arange(count, device=x.device)[:, None].expand(vectors.shape[:2])
    picked = flat[(rows, *places)]
    return picked.reshape(*indices.shape[:-1], *flat.shape[1 + depth :])


def _slice(
    node: ir.Node, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    """Slice as Python does, with negative steps too."""
    del node
    first, last = ints(starts), ints(ends)
    along = range(len(first)) if axes is None else ints(axes)
    by = [1] * len(first) if steps is None else ints(steps)
    for start, end, axis, step in zip(first, last, along, by, strict=True):
        places = range(x.shape[axis])[slice(start, end, step)]
        if step > 0:
            x = x.narrow(axis, places.start, 0) if not places else _strided(x, axis, places)
        else:
            x = x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
    return x


def _strided(x: Tensor, axis: int, places: range) -> Tensor:
    """Return the view of `x` at the rising `places` of `axis`."""
    view = [slice(None)] * x.dim()
    view[axis] = slice(places.start, places.stop, places.step)
    return x[tuple(view)]


def _shape(node: ir.Node, x: Tensor) -> Tensor:
    """Return the sizes of the axes from `start` to `end`, int64."""
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", x.dim())
    return torch.tensor(x.shape[start:end], dtype=torch.int64, device=x.device)


def _size(node: ir.Node, x: Tensor) -> Tensor:
    del node
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


def _constant_of_shape(node: ir.Node, shape: Tensor) -> Tensor:
    """Return a tensor filled with the attribute `value`, float32 0 where absent."""
    value = node.attributes.get_tensor("value")
    fill = torch.zeros(1) if value is None else torch.tensor(value.numpy())
    return fill.reshape(()).to(shape.device).expand(ints(shape))


def _range(node: ir.Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    del node
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)


def _positive(indices: Tensor, size: int) -> Tensor:
    wide = indices.to(torch.int64)
    return torch.where(wide < 0, wide + size, wide)


OPERATORS: Final[Operators] = {
    "ConstantOfShape": _constant_of_shape,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Range": _range,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
}

"""Architectures whose layers were made narrower or left out: how a checkpoint finds back to its own shapes.

A pruned network is its architecture with smaller tensors, so the tensors themselves say how wide each layer is.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

NARROWED = "narrowed"
"""Attribute of a network whose layers have other widths than its architecture's."""


class Dropped(nn.Identity):
    """Stands where a block was left out."""


def drop_(module: nn.Module, name: str) -> None:
    """Put a `Dropped` in the place of the block `name`."""
    owner, _, last = name.rpartition(".")
    setattr(module.get_submodule(owner), last, Dropped())


def dropped(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the blocks that were left out."""
    return tuple(name for name, part in module.named_modules() if isinstance(part, Dropped))


def fit_(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give every layer of `module` the widths of `tensors`; values are left undefined where widths change."""
    for path, part in module.named_modules():
        known = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False))}
        for name, old in known.items():
            new = tensors.get(f"{path}.{name}" if path else name)
            if new is None or new.shape == old.shape:
                continue
            empty = torch.zeros(new.shape, dtype=old.dtype, device=old.device)
            setattr(part, name, nn.Parameter(empty) if isinstance(old, nn.Parameter) else empty)
        _tell_(part)
    setattr(module, NARROWED, True)


def _tell_(part: nn.Module) -> None:
    """Make the sizes that a layer keeps beside its tensors those of its tensors."""
    if isinstance(part, nn.Conv2d):
        outputs, inputs = part.weight.shape[:2]
        if part.groups > 1 and part.groups == part.in_channels:  # one filter a channel, or some
            part.groups = outputs * part.groups // part.out_channels
        part.out_channels, part.in_channels = outputs, inputs * part.groups
    elif isinstance(part, nn.Linear):
        part.out_features, part.in_features = part.weight.shape
    elif isinstance(part, _BatchNorm) and part.running_mean is not None:
        part.num_features = len(part.running_mean)
    elif isinstance(part, nn.LayerNorm):
        part.normalized_shape = tuple(part.weight.shape)

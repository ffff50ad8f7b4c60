"""What happens inside of a network, seen while it runs: feature maps by stride, hidden states, queries and keys."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torchvision.models import SwinTransformer

from edgeft.core.errors import UsageError
from edgeft.finetune.cache import MAPS
from edgeft.finetune.feeds import Input
from edgeft.models.probing import at_rest
from edgeft.models.stages import Groups, chain

_POOLED = 32
"""Rows of the largest image whose deepest map may be one row; of larger ones such a map was pooled."""
VECTOR = "vector"
"""What the head is given, [N, D]."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A place to look at.

    Args:
        name: what is seen there is called so.
        module: whose output.
        pick: of the output; None takes it as it is.
    """

    name: str
    module: nn.Module
    pick: Callable[[Any], Tensor] | None = None


@contextmanager
def watching(spots: Sequence[Spot]) -> Iterator[dict[str, Tensor]]:
    """Yield what the spots' modules put out last, by name, as long as the context is open."""
    seen: dict[str, Tensor] = {}

    def note(spot: Spot, output: Any) -> None:  # noqa: ANN401 - a tensor, or hidden states with their masks
        seen[spot.name] = output if spot.pick is None else spot.pick(output)

    hooks = [spot.module.register_forward_hook(lambda _, __, out, spot=spot: note(spot, out)) for spot in spots]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def vector(module: nn.Module, groups: Groups) -> Spot:
    """Return the place in front of the head, [N, D]; where the head itself pools a feature map, the map's mean."""
    rows = (1, 2) if _channels_last(module) else (2, 3)
    return Spot(VECTOR, groups[-2][1], lambda output: output.mean(rows) if output.ndim == MAPS else output)


def maps(module: nn.Module, groups: Groups, example: Input, height: int) -> dict[int, Spot]:
    """Return the deepest feature map of each stride (rows of the input for one of the map's), from stem to head.

    A stride is the nearest power of two: where sizes do not divide, maps have a row more.

    Args:
        module: an image model.
        groups: its depth groups.
        example: one input.
        height: its rows.

    Raises:
        UsageError: its maps hold channels last.
    """
    if _channels_last(module):
        raise UsageError(
            f"distill: the feature maps of {type(module).__name__} hold channels last, and are matched with no others",
            hint="use relations, which needs no maps, or another student",
        )
    spots = [Spot(name, group) for name, group in groups[:-1]]
    parts = {
        name: [Spot(f"{name}.{index}", part) for index, part in enumerate(group)]
        for name, group in groups[:-1]
        if isinstance(group, nn.Sequential)
    }
    with watching([*spots, *itertools.chain.from_iterable(parts.values())]) as seen, at_rest(module):
        chain(groups)(example)

    def is_map(spot: Spot) -> bool:
        shape = seen[spot.name].shape
        return len(shape) == MAPS and not (shape[2] == 1 and height > _POOLED)

    found = {}
    for spot in spots:
        for place in [spot] if is_map(spot) else filter(is_map, parts.get(spot.name, [])):  # what it pooled
            found[2 ** round(math.log2(height / seen[place.name].shape[2]))] = place
    return found


def _channels_last(module: nn.Module) -> bool:
    """Return whether feature maps are [N, H, W, C], as timm tells of its models, and torchvision of none."""
    return isinstance(module, SwinTransformer) or str(getattr(module, "output_fmt", "NCHW")).endswith("NHWC")


def layers(groups: Groups) -> list[Spot]:
    """Return the hidden states [N, L, D] behind each layer of a text encoder.

    Raises:
        UsageError: it is no chain of layers.
    """
    found = []
    for name, group in groups:
        if name.startswith("layer."):
            layer = group[0] if isinstance(group, nn.Sequential) else group
            found.append(Spot(name, layer, lambda hidden: hidden.states))
    if not found:
        raise UsageError("distill: an encoder that is run whole shows none of its layers", hint="use features: 1.0")
    return found


def projections(groups: Groups, layer: int) -> dict[str, Spot]:
    """Return queries, keys and values [N, L, A * d] of a layer of a text encoder.

    Raises:
        UsageError: it has none of BERT's names.
    """
    inner = layers(groups)[layer].module
    found = {}
    for kind in ("query", "key", "value"):
        named = [part for name, part in inner.named_modules() if name.endswith(f"attention.self.{kind}")]
        if len(named) != 1:
            raise UsageError(
                f"distill: layer {layer} has {len(named)} parts called attention.self.{kind}; BERT's attention has one",
                hint="use hidden or features instead",
            )
        found[kind] = Spot(f"{kind}.{layer}", named[0])
    return found

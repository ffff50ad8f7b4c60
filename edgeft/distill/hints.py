"""What a student learns from inside of its teacher: for each loss, where to look in both and how to compare.

What has one size a row (vectors, feature maps, attention maps of images) is kept on disk with the teacher's logits;
what is as long as a text is asked of the teacher anew for each batch. Learned projections are a part of the student
while it trains, so that they are optimized and resumed with it, and are taken off at the end.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeft.core.errors import UsageError
from edgeft.distill import losses, taps
from edgeft.distill.config import KnowledgeConfig
from edgeft.distill.taps import VECTOR, Spot
from edgeft.finetune.feeds import Input
from edgeft.models.probing import at_rest
from edgeft.models.stages import Groups

Seen: TypeAlias = Mapping[str, Tensor]
"""What was seen of a batch, by the spot's name."""
_MASK = "mask"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two networks.

    Args:
        module: the network.
        groups: its depth groups.
        example: one input of it.
        height: rows of the input where it is an image; None of texts.
        heads: of a text encoder's attention.
    """

    module: nn.Module
    groups: Groups
    example: Input
    height: int | None = None
    heads: int = 1


@dataclass(frozen=True, slots=True)
class Hint:
    """One loss.

    Args:
        weight: in the sum.
        own: where to look in the student.
        told: where to look in the teacher; names pair them.
        loss: (what was seen of the student, of the teacher) -> scalar.
        projection: what maps the student's numbers to the teacher's width.
        live: whether what the teacher shows is as long as a text.
    """

    weight: float
    own: Sequence[Spot]
    told: Sequence[Spot]
    loss: Callable[[Seen, Seen], Tensor]
    projection: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    live: bool = False


def hints(config: KnowledgeConfig, student: Side, teacher: Side, mapped: Sequence[int]) -> dict[str, Hint]:
    """Return the hints that `config` gives a weight, by name.

    Args:
        config: the weights.
        student: who is taught.
        teacher: by whom.
        mapped: of texts, the teacher's layer for each of the student's.

    Raises:
        UsageError: a loss has no place in one of the two, or places cannot be matched.
    """
    texts = student.height is None
    found = {}
    for name in config.hints:
        weight = getattr(config, name)
        if name == "relations":
            found[name] = _relations(weight, student, teacher)
        elif name == "features":
            found[name] = _vectors(weight, student, teacher) if texts else _features(weight, student, teacher)
        elif name == "attention":
            found[name] = _heads(weight, student, teacher, mapped) if texts else _attention(weight, student, teacher)
        elif not texts:
            raise UsageError(f"distill.{name}: is for texts, and these are images", hint="use features or attention")
        elif name == "hidden":
            found[name] = _hidden(weight, student, teacher, mapped)
        else:
            found[name] = _self_relations(weight, student, teacher)
    return found


def _relations(weight: float, student: Side, teacher: Side) -> Hint:
    def loss(seen: Seen, told: Seen) -> Tensor:
        return losses.relations(seen[VECTOR], told[VECTOR])

    own, other = (taps.vector(side.module, side.groups) for side in (student, teacher))
    return Hint(weight, [own], [other], loss)


def _vectors(weight: float, student: Side, teacher: Side) -> Hint:
    own, other = (taps.vector(side.module, side.groups) for side in (student, teacher))
    mapping = _linear(_width(student, own, -1), _width(teacher, other, -1))

    def loss(seen: Seen, told: Seen) -> Tensor:
        return losses.regression(mapping(seen[VECTOR]), told[VECTOR])

    return Hint(weight, [own], [other], loss, nn.ModuleDict({VECTOR: mapping}))


def _features(weight: float, student: Side, teacher: Side) -> Hint:
    pairs = _paired_maps(student, teacher)
    stride = max(pairs)
    own, other, size = pairs[stride]
    name = f"features.{stride}"
    mapping = nn.Conv2d(_width(student, own, 1), _width(teacher, other, 1), 1)

    def loss(seen: Seen, told: Seen) -> Tensor:
        return losses.regression(mapping(_sized(seen[name], size)), told[name])

    told = Spot(name, other.module, lambda maps: _sized(maps, size))
    return Hint(weight, [Spot(name, own.module)], [told], loss, nn.ModuleDict({"map": mapping}))


def _attention(weight: float, student: Side, teacher: Side) -> Hint:
    own, told = [], []
    for stride, (ours, theirs, size) in _paired_maps(student, teacher).items():

        def pick(maps: Tensor, size: tuple[int, int] = size) -> Tensor:
            return losses.attention_map(_sized(maps, size))

        own.append(Spot(f"attention.{stride}", ours.module, pick))
        told.append(Spot(f"attention.{stride}", theirs.module, pick))

    def loss(seen: Seen, given: Seen) -> Tensor:
        pairs = [((seen[spot.name] - given[spot.name]) ** 2).sum(1).mean() for spot in own]
        return torch.stack(pairs).mean()

    return Hint(weight, own, told, loss)


def _hidden(weight: float, student: Side, teacher: Side, mapped: Sequence[int]) -> Hint:
    ours, theirs = taps.layers(student.groups), taps.layers(teacher.groups)
    own = [Spot(f"hidden.{number}", spot.module, spot.pick) for number, spot in enumerate(ours)]
    told = [Spot(f"hidden.{number}", theirs[place].module, theirs[place].pick) for number, place in enumerate(mapped)]
    widths = _width(student, ours[0], -1), _width(teacher, theirs[0], -1)
    mapping = nn.ModuleDict({str(number): _linear(*widths) for number in range(len(own))})

    def loss(seen: Seen, given: Seen) -> Tensor:
        pairs = [
            losses.regression(mapping[str(number)](seen[spot.name]), given[spot.name], seen[_MASK])
            for number, spot in enumerate(own)
        ]
        return torch.stack(pairs).mean()

    return Hint(weight, [*own, _mask(student)], told, loss, mapping, live=True)


def _heads(weight: float, student: Side, teacher: Side, mapped: Sequence[int]) -> Hint:
    if student.heads != teacher.heads:
        raise UsageError(
            f"distill.attention: the student has {student.heads} heads, its teacher {teacher.heads}: no two are alike",
            hint="use self_relations, which cuts both into as many",
        )
    own, told = [], []
    for number, place in enumerate(mapped):
        for kind in ("query", "key"):
            own.append(_renamed(taps.projections(student.groups, number)[kind], f"{kind}.{number}"))
            told.append(_renamed(taps.projections(teacher.groups, place)[kind], f"{kind}.{number}"))

    def loss(seen: Seen, given: Seen) -> Tensor:
        pairs = [
            losses.attention(
                (seen[f"query.{number}"], seen[f"key.{number}"]),
                (given[f"query.{number}"], given[f"key.{number}"]),
                seen[_MASK],
                student.heads,
            )
            for number in range(len(mapped))
        ]
        return torch.stack(pairs).mean()

    return Hint(weight, [*own, _mask(student)], told, loss, live=True)


def _self_relations(weight: float, student: Side, teacher: Side) -> Hint:
    ours, theirs = (taps.projections(side.groups, -1) for side in (student, teacher))
    own = [_renamed(spot, f"last {kind}") for kind, spot in ours.items()]
    told = [_renamed(spot, f"last {kind}") for kind, spot in theirs.items()]

    def loss(seen: Seen, given: Seen) -> Tensor:
        pairs = [losses.self_relations(seen[spot.name], given[spot.name], seen[_MASK], student.heads) for spot in own]
        return torch.stack(pairs).mean()

    width = _width(teacher, theirs["query"], -1)
    if width % student.heads:
        raise UsageError(
            f"distill.self_relations: the teacher's {width} dimensions do not divide by {student.heads} heads",
            hint="use features, or a student with another number of heads",
        )
    return Hint(weight, [*own, _mask(student)], told, loss, live=True)


def _mask(side: Side) -> Spot:
    first = taps.layers(side.groups)[0]
    return Spot(_MASK, first.module, lambda hidden: hidden.mask[:, :, 0])


def _renamed(spot: Spot, name: str) -> Spot:
    return Spot(name, spot.module, spot.pick)


def _paired_maps(student: Side, teacher: Side) -> dict[int, tuple[Spot, Spot, tuple[int, int]]]:
    """Return by stride the deepest feature maps of both, and the size of the smaller one."""
    ours, theirs = (taps.maps(side.module, side.groups, side.example, side.height or 1) for side in (student, teacher))
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        told = [
            f"{who} has them at {', '.join(map(str, each)) or 'no'} pixels"
            for who, each in (("the student", ours), ("its teacher", theirs))
        ]
        raise UsageError(
            f"distill: feature maps cannot be matched by the pixels between their rows: {'; '.join(told)}",
            hint="use relations, which needs no maps, or another student",
        )
    found = {}
    for stride in shared:
        sizes = [_shape(side, spot)[2:] for side, spot in ((student, ours[stride]), (teacher, theirs[stride]))]
        found[stride] = (ours[stride], theirs[stride], (min(each[0] for each in sizes), min(each[1] for each in sizes)))
    return found


def _sized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if tuple(maps.shape[2:]) == size else functional.adaptive_avg_pool2d(maps, size)


def _shape(side: Side, spot: Spot) -> tuple[int, ...]:
    with taps.watching([spot]) as seen, at_rest(side.module):
        value = side.example
        for _, group in side.groups:
            value = group(value)
    return tuple(seen[spot.name].shape)


def _width(side: Side, spot: Spot, axis: int) -> int:
    return _shape(side, spot)[axis]


def _linear(width: int, wanted: int) -> nn.Linear:
    """Return a mapping that begins as the identity where both are as wide."""
    layer = nn.Linear(width, wanted)
    if width == wanted:
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer

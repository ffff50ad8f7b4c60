r"""Narrower convolutions: channels that take long and matter little are taken out of the network.

Channels that are added, multiplied or scaled together go together; torch-pruning finds these groups. Of each group the
least important channels are offered in bundles that leave a multiple of `ROUND`, and the bundle with the smallest
importance for the time that it saves is taken, until enough multiply-adds are gone. How long an integer convolution
takes is estimated from three numbers, in units of a dense multiply-add:

    multiply-adds * (DEPTHWISE if it is depthwise else 1) + MOVED * (elements read + elements written)

Taking channels out gives the same numbers as setting them to 0.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from edgeft.core.errors import UsageError
from edgeft.distill.importance import Importance
from edgeft.models import shapes
from edgeft.models.architectures import classifier_prefix

ROUND = 16
"""Widths stay multiples of it: integer kernels fill their registers with so many. On a CPU with VNNI EfficientNet-Lite0
less 30 % of its multiply-adds took 1.12 times as long in int8 with multiples of 8, .81 times with multiples of 16."""
DEPTHWISE = 10.0
"""How many times as long a depthwise convolution takes for a multiply-add as a dense one."""
MOVED = 20.0
"""So many dense multiply-adds take as long as reading or writing one element. Both are fitted to what onnxruntime 1.32
took for each QLinearConv of ResNet-18, MobileNetV2 and EfficientNet-Lite0 on one thread of a CPU with VNNI: in the
middle 15 % off."""
_LEAST = 0.1
"""Share of a group's channels that stays."""
Side: TypeAlias = Literal["out", "in", "both"]


@dataclass(slots=True)
class _Layer:
    """What a layer costs while channels are taken from it.

    Args:
        macs: its multiply-adds for one image or text.
        slowness: how long one of them takes, in dense ones.
        outputs, inputs: its channels.
        written, read: elements of one of them.
    """

    macs: float
    slowness: float
    outputs: float
    inputs: float
    written: float
    read: float

    def macs_saved(self, side: Side, channels: float) -> float:
        """Return the multiply-adds that `channels` fewer on `side` save."""
        return self.macs * channels / (self.inputs if side == "in" else self.outputs)

    def time_saved(self, side: Side, channels: float) -> float:
        """Return the time that they save, in dense multiply-adds."""
        moved = {"out": self.written, "in": self.read, "both": self.written + self.read}[side]
        return self.slowness * self.macs_saved(side, channels) + MOVED * moved * channels

    def take_(self, side: Side, channels: float) -> None:
        """Take them."""
        self.macs -= self.macs_saved(side, channels)
        if side != "in":
            self.outputs -= channels
        if side != "out":
            self.inputs -= channels


@dataclass(slots=True)
class _Group:
    """Channels that go together.

    Args:
        root: the layer that makes them.
        order: its channels, the least important first.
        costs: their importance, in this order.
        uses: the layers that hold them: which, on which side, how many of its channels for one of the root's.
        taken: how many are taken.
    """

    root: nn.Module
    order: list[int]
    costs: list[float]
    uses: list[tuple[_Layer, Side, float]]
    taken: int = 0

    def bundle(self) -> int:
        """Return how many channels would go next; 0 where none may."""
        left = len(self.order) - self.taken
        size = left % ROUND or ROUND
        return size if left - size >= max(ROUND, _LEAST * len(self.order)) else 0

    def price(self) -> float:
        """Return the importance lost for the time saved by the next bundle."""
        size = self.bundle()
        saved = sum(layer.time_saved(side, size * share) for layer, side, share in self.uses)
        return sum(self.costs[self.taken : self.taken + size]) / max(saved, 1.0)

    def take_(self) -> None:
        """Take the next bundle."""
        size = self.bundle()
        for layer, side, share in self.uses:
            layer.take_(side, size * share)
        self.taken += size


def prune_(module: nn.Module, pixels: Tensor, importance: Importance, share: float) -> tuple[int, int]:
    """Take channels out of `module` until `share` of its multiply-adds are gone; return them before and after.

    Args:
        module: a convolutional classifier; its classifier keeps its outputs.
        pixels: what it takes, float32 [n, 3, H, W].
        importance: of its parameters.
        share: 0..1.

    Raises:
        UsageError: the network has no channels that can be taken, or not so many.
    """
    module.eval()
    try:
        graph, found = _groups(module, pixels, importance)
    except Exception as error:  # torch-pruning raises many types, none of them documented
        raise _refused(module, "be followed channel by channel", error) from error
    layers = {id(layer): layer for group in found for layer, _, _ in group.uses}
    before = multiply_adds(module, pixels)
    goal = share * before
    start = sum(layer.macs for layer in layers.values())
    while start - sum(layer.macs for layer in layers.values()) < goal:
        open_groups = [group for group in found if group.bundle()]
        if not open_groups:
            most = (start - sum(layer.macs for layer in layers.values())) / before
            raise UsageError(
                f"distill.prune: {share:g} of the multiply-adds, and at most {most:.2f} can be taken from "
                f"{type(module).__name__}",
                hint=f"distill.prune: {most * 0.9:.2f}",
            )
        min(open_groups, key=_Group.price).take_()
    try:
        for group in found:
            if group.taken:
                prune: Any = _library().prune_conv_out_channels
                graph.get_pruning_group(group.root, prune, sorted(group.order[: group.taken])).prune()
        after = multiply_adds(module, pixels)
    except Exception as error:  # as above; what it cut wrongly does not run
        raise _refused(module, "run with fewer channels", error) from error
    setattr(module, shapes.NARROWED, True)
    return before, after


def _refused(module: nn.Module, what: str, error: Exception) -> UsageError:
    return UsageError(
        f"distill.prune: {type(module).__name__} cannot {what}: {error}",
        hint="name a smaller network: distill.student.base",
    )


def multiply_adds(module: nn.Module, inputs: Any) -> int:  # noqa: ANN401 - pixels or tokens
    """Return the multiply-adds of all convolutions and linear layers for the first row of `inputs`, as they ran."""
    return round(sum(layer.macs for _, layer in _layers(module, inputs)))


def _library() -> Any:  # noqa: ANN401 - torch_pruning has no types
    import torch_pruning

    return torch_pruning


def _groups(module: nn.Module, pixels: Tensor, importance: Importance) -> tuple[Any, list[_Group]]:
    library = _library()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every parameter outside of a layer
        graph = library.DependencyGraph().build_dependency(module, example_inputs=pixels[:1])
        head = module.get_submodule(classifier_prefix(module).removesuffix("."))
        made = list(graph.get_all_groups(ignored_layers=[head], root_module_types=[nn.Conv2d]))
    names = {id(part): name for name, part in module.named_modules()}
    layers = {id(part): layer for part, layer in _layers(module, pixels[:1])}
    found = []
    for group in made:
        members = [(item.dep, item.idxs, item.root_idxs) for item in group]
        parts = [dep.target.module for dep, _, _ in members]
        if any(isinstance(part, nn.Conv2d) and 1 < part.groups < part.in_channels for part in parts):
            continue  # channels of grouped convolutions would have to go evenly from each of their groups
        width = len(members[0][1])
        cost = torch.zeros(width)
        uses: dict[int, tuple[_Layer, Side, float]] = {}
        for dep, idxs, roots in members:
            part = dep.target.module
            makes = bool(graph.is_out_channel_pruning_fn(dep.handler))
            if makes and id(part) in names:
                for kind in ("weight", "bias"):
                    told = importance.get(f"{names[id(part)]}.{kind}")
                    if told is not None and len(told) > max(idxs):
                        cost.index_add_(0, torch.tensor(roots), told[torch.tensor(idxs)])
            if id(part) in layers:
                side: Side = "out" if makes else "in"
                if isinstance(part, nn.Conv2d) and part.groups > 1:
                    side = "both"
                uses[id(part)] = (layers[id(part)], side, len(idxs) / width)
        order = sorted(range(width), key=lambda channel: float(cost[channel]))
        found.append(_Group(parts[0], order, [float(cost[each]) for each in order], list(uses.values())))
    return graph, found


def _layers(module: nn.Module, inputs: Any) -> list[tuple[nn.Module, _Layer]]:  # noqa: ANN401 - as above
    """Return the convolutions and linear layers with what they cost, in the order they ran."""
    found: list[tuple[nn.Module, _Layer]] = []

    def note(part: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        macs = part.weight[0].numel() * output[0].numel()  # type: ignore[index] # these have one
        axis = 1 if isinstance(part, nn.Conv2d) else -1
        slowness = DEPTHWISE if isinstance(part, nn.Conv2d) and part.groups > 1 else 1.0
        outputs, inputs = output.shape[axis], given[0].shape[axis]
        written, read = output[0].numel() / outputs, given[0][0].numel() / inputs
        found.append((part, _Layer(float(macs), slowness, float(outputs), float(inputs), written, read)))

    hooks = [each.register_forward_hook(note) for each in module.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    try:
        with torch.no_grad():
            module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found

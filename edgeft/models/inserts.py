"""Modules that are put into a model and stay in it: small parts that are trained in place of the model's own weights.

    adapter    y + up(relu(down(y)))       behind sub-layers or blocks; up starts at 0           (Houlsby et al. 2019)
    prompt     vectors that stand beside those of the input, for attention to look at             (Lester et al. 2021,
                                                                                                   Jia et al. 2022)
    prefix     keys and values that each attention sees beside its own                            (Li & Liang 2021)

Self-attention does not see an order, so prompts stand behind the input: the first token stays the first, and pooling
leaves them out. A model tells by its attribute `inserts` what was put into it, and a checkpoint keeps that. For where
they go, see `insertion`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn

from edgeft.core.stage import Json

Kind: TypeAlias = Literal["adapter", "prompt", "prefix"]
PLACE: Final = "inserted"
"""What an inserted module is called in the module that it belongs to."""
_STD = 0.02


@dataclass(frozen=True, slots=True)
class Insert:
    """What was put into a model.

    Args:
        kind: of its modules.
        size: width of each bottleneck, number of prompts, or number of keys in each prefix.
        sites: name of the module it belongs to -> shape of what flows there, without batch and positions.
    """

    kind: Kind
    size: int
    sites: Mapping[str, tuple[int, ...]]

    def to_json(self) -> dict[str, Json]:
        """Return JSON values."""
        return asdict(self) | {"sites": {name: list(shape) for name, shape in self.sites.items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Insert":
        """Return what `to_json` wrote."""
        return cls(values["kind"], int(values["size"]), {name: tuple(s) for name, s in values["sites"].items()})


class Adapter(nn.Module):
    """A bottleneck with a shortcut, for [N, C, H, W] or [..., C]."""

    def __init__(self, channels: int, size: int, *, images: bool) -> None:
        super().__init__()
        self.down: nn.Module = nn.Conv2d(channels, size, 1) if images else nn.Linear(channels, size)
        up = nn.Conv2d(size, channels, 1) if images else nn.Linear(size, channels)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)  # type: ignore[arg-type] # it has one
        self.up: nn.Module = up

    def forward(self, y: Tensor) -> Tensor:
        """Return what goes on in place of y."""
        found: Tensor = y + self.up(torch.relu(self.down(y)))
        return found


class Prompt(nn.Module):
    """Vectors float [P, D]."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(_STD * torch.randn(size, width))

    def behind(self, states: Tensor) -> Tensor:
        """Return `states` [N, L, D] with the prompts behind them: [N, L + P, D]."""
        return torch.cat([states, self.vectors.expand(states.shape[0], -1, -1)], dim=1)


class Prefix(nn.Module):
    """Keys and values float [H, P, D / H] of one attention."""

    def __init__(self, size: int, heads: int, width: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(_STD * torch.randn(heads, size, width))
        self.values = nn.Parameter(_STD * torch.randn(heads, size, width))


def of(module: nn.Module) -> tuple[Insert, ...]:
    """Return what was put into `module`, in order."""
    return tuple(getattr(module, "inserts", ()))


def outside(found: Sequence[Insert], dropped: Sequence[str]) -> tuple[Insert, ...]:
    """Return `found` without the sites that are, or lie in, one of the modules `dropped`."""

    def gone(site: str) -> bool:
        return any(site == name or site.startswith(f"{name}.") for name in dropped)

    left = [{site: shape for site, shape in each.sites.items() if not gone(site)} for each in found]
    return tuple(replace(each, sites=sites) for each, sites in zip(found, left, strict=True) if sites)


def is_inserted(name: str) -> bool:
    """Return whether a parameter belongs to an inserted module."""
    return f".{PLACE}." in f".{name}"

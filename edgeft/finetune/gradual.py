"""Unfreeze from the top: the head first, then the groups below it, the lower ones with smaller learning rates.

While a part of the trunk is frozen its output is computed once per view and read from a cache (Howard & Ruder 2018,
section 3.3, with the cache added). One base cache holds the output of the layers that stay frozen through all cached
phases; what lies between it and a phase's boundary is run once per view and phase from there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from edgeft.core.stage import Context, Inputs, StageResult
from edgeft.finetune import features
from edgeft.finetune.cache import ActivationCache
from edgeft.finetune.config import GradualConfig
from edgeft.finetune.feeds import Feed, FrozenTokenFeed, PrefixFeed
from edgeft.finetune.loop import Phase
from edgeft.finetune.sampling import Rows
from edgeft.finetune.session import Session, finish, part_writer, session
from edgeft.models.stages import chain

_MIB = 1 << 20
_FLOAT32 = 4


def run(ctx: Context, inputs: Inputs, config: GradualConfig) -> StageResult:
    """Fine-tune from the head downwards and write what was trained.

    Raises:
        DataError: the data folder or the weights cannot be used.
        UsageError: the settings cannot be used, or training diverged.
    """
    with session(ctx, inputs, config) as opened:
        count = len(opened.groups)
        phases = release_plan(
            count,
            config.epochs,
            head_epochs=config.head_epochs,
            every=config.unfreeze_every,
            per_release=config.groups_per_release,
            frozen=config.frozen_groups,
        )
        feeds = _TextFeeds(opened, config) if opened.data.is_text else _Feeds(opened, config, phases)
        write = part_writer(opened, phases)
        fit = opened.loop().run(phases, feeds)
        return finish(opened, fit, phases, [feeds.note()], write=write)


def release_plan(
    groups: int, epochs: int, *, head_epochs: int, every: int, per_release: int, frozen: int
) -> list[Phase]:
    """Return which groups are trained when.

    Args:
        groups: number of depth groups, the head included.
        epochs: of the whole run.
        head_epochs: epochs that train the head alone.
        every: epochs between two releases.
        per_release: groups let go at once.
        frozen: groups at the stem that are never let go.
    """
    lowest = min(frozen, groups - 1)
    phases, first, boundary = [], 0, groups - 1
    length = head_epochs
    while first < epochs:
        last = epochs if boundary == lowest else min(first + length, epochs)
        if last > first:
            phases.append(Phase(first, last, boundary))
        first, boundary, length = last, max(boundary - per_release, lowest), every
    return phases


def base_boundary(phases: Sequence[Phase], row_bytes: Sequence[int], rows: int, limit: int) -> int | None:
    """Return the lowest boundary whose activations fit: everything from there upwards can be cached.

    Args:
        phases: the release plan.
        row_bytes: per boundary, bytes of one row's activations.
        rows: rows to store, views included.
        limit: bytes.
    """
    fitting = [phase.boundary for phase in phases if phase.boundary and row_bytes[phase.boundary] * rows <= limit]
    return min(fitting, default=None)


class _TextFeeds:
    """Feeds of texts: the head's input is kept, what is lower runs anew for every batch, since its size varies."""

    def __init__(self, opened: Session, config: GradualConfig) -> None:
        self._opened, self._config, self._tokens = opened, config, opened.token_feed()

    def __call__(self, phase: Phase) -> Feed:
        opened = self._opened
        if phase.boundary == 0:
            return self._tokens
        if phase.boundary == opened.head:
            rows = len(opened.data.indices("train")) + len(opened.data.indices("val"))
            return features.feed(features.base_cache(opened, self._config, opened.head, rows)[0], opened, self._config)
        return FrozenTokenFeed(self._tokens, chain(opened.groups[: phase.boundary]))

    def note(self) -> str:
        """Return what was cached."""
        return "activations: cached where the head alone is trained; lower layers run anew for every batch"


class _Feeds:
    """Makes each phase's feed; drops the previous phase's cache."""

    def __init__(self, opened: Session, config: GradualConfig, phases: Sequence[Phase]) -> None:
        self._opened, self._config = opened, config
        cached = sum(phase.last - phase.first for phase in phases if phase.boundary)
        self._views = min(config.views if config.augment else 1, max(cached, 1))
        rows = self._views * len(opened.data.indices("train")) + len(opened.data.indices("val"))
        row_bytes = _row_bytes(opened)
        self._smallest = min((row_bytes[phase.boundary] * rows for phase in phases if phase.boundary), default=0)
        self._base = base_boundary(phases, row_bytes, rows, config.cache_limit_mb * _MIB)
        self._derived: ActivationCache | None = None
        self._engine = "torch"
        if self._base is not None:
            self._base_cache, self._engine = features.base_cache(opened, config, self._base, rows)

    def __call__(self, phase: Phase) -> Feed:
        if self._derived is not None:
            self._derived.drop()
            self._derived = None
        opened = self._opened
        if phase.boundary == 0:
            return opened.pixel_feed()
        if self._base is None or phase.boundary < self._base:
            images = (phase.last - phase.first) * (len(opened.data.indices("train")) + len(opened.data.indices("val")))
            engine, _ = features.frozen_engine(opened, self._config, phase.boundary, images)
            return PrefixFeed(opened.pixel_feed(), engine, opened.accelerate.device)
        if phase.boundary == self._base:
            return features.feed(self._base_cache, opened, self._config)
        self._derived = self._between(self._base, phase.boundary)
        return features.feed(self._derived, opened, self._config)

    def note(self) -> str:
        """Return which part of the trunk was cached, and how."""
        if self._base is None and not self._smallest:
            return "activations: nothing is frozen, so nothing is cached"
        if self._base is None:
            return (
                f"activations: not cached, the frozen layers run anew for every batch: {self._smallest / _MIB:,.0f} MB "
                f"would be needed, finetune.cache_limit_mb is {self._config.cache_limit_mb:,}"
            )
        name = self._opened.groups[self._base - 1][0]
        return f"activations: cached up to {name} for {self._views} fixed view(s) per image, computed by {self._engine}"

    def _between(self, base: int, boundary: int) -> ActivationCache:
        opened, source = self._opened, self._base_cache
        layers, device = chain(opened.groups[base:boundary]).eval(), opened.accelerate.device

        def compute(split: str, view: int, rows: Rows) -> Tensor:
            with torch.inference_mode():
                output: Tensor = layers(source.rows(split, view, rows).to(device))
                return output

        return features.activation_cache(opened, str(boundary), compute)


def _row_bytes(opened: Session) -> list[int]:
    """Return, per boundary, the bytes of one row's activations; 0 for the pixels."""
    contract = opened.data.input
    x = torch.zeros(1, 3, contract.height, contract.width, device=opened.accelerate.device)
    sizes = [0]
    with torch.inference_mode():
        for _, group in opened.groups[:-1]:
            x = group.eval()(x)
            sizes.append(x.numel() * _FLOAT32)
    return sizes

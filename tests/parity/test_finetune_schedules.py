"""Schedules against torch.optim.lr_scheduler's, step by step."""

import math
from typing import Literal

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from edgeft.finetune.schedules import progress, schedule

STEPS = 60


def torchs(make: type[LRScheduler], **settings: float) -> list[float]:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, **settings)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def ours(
    name: Literal["cosine", "one_cycle", "step", "constant"], warmup: float, every: float = 1 / 3, factor: float = 0.1
) -> list[float]:
    plan = schedule(name, warmup, every, factor)
    return [plan(step / STEPS) for step in range(STEPS)]


def test_cosine_is_torchs() -> None:
    assert ours("cosine", 0.0) == pytest.approx(torchs(CosineAnnealingLR, T_max=STEPS), abs=1e-9)


def test_steps_are_torchs() -> None:
    assert ours("step", 0.0, every=0.25, factor=0.3) == pytest.approx(torchs(StepLR, step_size=15, gamma=0.3), rel=1e-9)


def test_one_cycle_is_torchs() -> None:
    # torch puts its peak at step pct * total - 1 and its end at total - 1: the same curve on another grid
    expected = torchs(OneCycleLR, max_lr=1.0, total_steps=STEPS, pct_start=0.25)
    plan = schedule("one_cycle", 0.25, 1 / 3, 0.1)
    peak = 0.25 * STEPS - 1
    grid = [
        step / peak * 0.25 if step < peak else 0.25 + 0.75 * (step - peak) / (STEPS - 1 - peak) for step in range(STEPS)
    ]
    assert [plan(t) for t in grid] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["cosine", "step", "constant"])
def test_warmup_rises_in_a_straight_line(name: Literal["cosine", "step", "constant"]) -> None:
    assert ours(name, 0.5)[:30] == pytest.approx([step / 30 for step in range(30)])
    assert ours(name, 0.5, every=1.0)[30] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["cosine", "one_cycle", "step", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_no_step_is_wasted_on_rate_zero(
    name: Literal["cosine", "one_cycle", "step", "constant"], warmup: float, steps: int
) -> None:
    plan = schedule(name, warmup, 1 / 3, 0.1)
    factors = [plan(progress(step, steps)) for step in range(steps)]
    assert all(0 < factor <= 1 and math.isfinite(factor) for factor in factors)

"""`edgeft lr-find`: the learning-rate range test (Smith 2017) with a recipe's own method, model and data.

The rate grows by the same factor at every step while the loss is watched. Smoothed, the loss is flat at first, then
falls, then turns and explodes: it ends there, or at the highest rate. With s the smoothed loss,

    lowest      the rate at which s was lowest
    steepest    the rate at which s fell fastest over log(rate), below the lowest
    suggestion  lowest / 10: still falling, and far enough from the turn

Nothing is kept: the model of the test is thrown away.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeft import catalog
from edgeft.core import machine
from edgeft.core.errors import UsageError
from edgeft.core.events import Event, EventSink, Step, ignore
from edgeft.core.stage import Context
from edgeft.core.store import Store
from edgeft.pipeline.walk import walk
from edgeft.recipe.model import Recipe
from edgeft.recipe.resolve import Resolver, source_digests
from edgeft.recipe.stages import stages

_KEEP = 0.9
"""Of the moving average that smooths the loss."""
_EXPLODED = 2.0
"""Times the lowest smoothed loss at which the test ends."""
_FEWEST = 12
"""Steps that a suggestion needs."""
_SAFETY = 10
_NEVER = 1e9


@dataclass(frozen=True, slots=True)
class RangeTest:
    """What a range test found.

    Args:
        rates: learning rate of each step.
        losses: mean loss of each step.
        smoothed: the same, smoothed.
        lowest: rate at the lowest smoothed loss.
        steepest: rate at which it fell fastest.
        suggestion: a tenth of `lowest`.
        exploded: whether the loss exploded before the highest rate.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    lowest: float
    steepest: float
    suggestion: float
    exploded: bool


class _EnoughError(Exception):
    """The loss exploded."""


@dataclass(slots=True)
class _Watch:
    emit: EventSink
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Step):
            self.emit(event)
            return
        self.rates.append(event.lr)
        self.losses.append(event.loss)
        smooth = smoothed(self.losses)
        if len(smooth) > _FEWEST and smooth[-1] > _EXPLODED * min(smooth):
            raise _EnoughError


def lr_find(
    recipe: Recipe,
    *,
    cache: Path,
    steps: int = 100,
    lowest: float = 1e-7,
    highest: float = 1.0,
    emit: EventSink = ignore,
) -> dict[str, Any]:
    """Run the range test and return its curve and what it suggests, with the method and its own rate.

    Args:
        recipe: method, model and data; the data stage is run or reused.
        cache: where stage outputs are kept.
        steps: optimizer steps at least, rounded up to whole epochs.
        lowest: first rate.
        highest: last rate.
        emit: where events go.

    Raises:
        UsageError: rates that do not rise, a method without a rate, or a loss that is not finite from the start.
        DataError: the data or weights cannot be used.
    """
    if not 0 < lowest < highest:
        raise UsageError(f"rates from {lowest:g} to {highest:g}: the first must be above 0 and below the last")
    store = Store(cache.absolute())
    store.prepare()
    listed = {stage.name: stage for stage in stages(recipe, store)}
    finetune = listed["finetune"]
    written = getattr(finetune.config, "lr", None)
    if written is None or hasattr(finetune.config, "steps"):
        raise UsageError(
            f"finetune.method {finetune.method.name} has no learning rate of its own",
            hint="try one of its steps: --set finetune.method=lora",
        )
    resolver = Resolver(store, source_digests(recipe, store.cache, recipe.bundle_folder), recipe.seed)
    entries, _ = walk([listed["data"]], resolver, store, emit)
    data = entries["data"].folder
    watch = _Watch(emit)
    changed = {
        "lr": highest,
        "schedule": "range",
        "warmup": 0.0,
        "step_factor": lowest / highest,
        "early_stop": None,
        "ema": None,
        "checkpoint_seconds": _NEVER,
        "epochs": _epochs(finetune.config, entries["data"].measurements, steps),
    }
    config = finetune.config.model_copy(
        update={key: each for key, each in changed.items() if hasattr(finetune.config, key)}
    )
    exploded = False
    with tempfile.TemporaryDirectory() as folder:
        out, work = Path(folder) / "out", Path(folder) / "work"
        out.mkdir()
        work.mkdir()
        context = Context(out, work, seed=recipe.seed, threads=machine.threads(), emit=watch)
        try:
            catalog.resolve(finetune.method.run)(context, {"data": data, **finetune.sources}, config)
        except (_EnoughError, UsageError):
            if len(watch.losses) <= _FEWEST:
                raise
            exploded = True
    found = judge(watch.rates, watch.losses, exploded=exploded)
    return {"method": finetune.method.name, "lr": written, **asdict(found)}


def judge(rates: Sequence[float], losses: Sequence[float], *, exploded: bool) -> RangeTest:
    """Return what the curve of a range test says.

    Args:
        rates: rising.
        losses: of the same steps.
        exploded: passed on.

    Raises:
        UsageError: there are too few steps, or the loss never fell.
    """
    if len(losses) <= _FEWEST:
        raise UsageError(f"{len(losses)} steps say nothing: {_FEWEST + 1} are needed", hint="raise --steps")
    smooth = smoothed(losses)
    bottom = min(range(len(smooth)), key=smooth.__getitem__)
    falls = [
        (smooth[i + 1] - smooth[i - 1]) / (math.log(rates[i + 1]) - math.log(rates[i - 1])) for i in range(1, bottom)
    ]
    if not falls or min(falls) >= 0:
        raise UsageError(
            "the loss fell at no rate: nothing was learnt", hint="try lower rates: --from 1e-9, or look at the labels"
        )
    return RangeTest(
        rates=tuple(rates),
        losses=tuple(losses),
        smoothed=tuple(smooth),
        lowest=rates[bottom],
        steepest=rates[1 + min(range(len(falls)), key=falls.__getitem__)],
        suggestion=rates[bottom] / _SAFETY,
        exploded=exploded,
    )


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the exponential moving average, corrected for its start."""
    mean, found = 0.0, []
    for step, loss in enumerate(losses, 1):
        mean = _KEEP * mean + (1 - _KEEP) * loss
        found.append(mean / (1 - _KEEP**step))
    return found


def _epochs(config: Any, measured: Any, steps: int) -> int:  # noqa: ANN401 - a method's config, a stage's numbers
    rows: int = sum(measured["counts"]["train"].values())
    return max(1, math.ceil(steps * int(config.batch_size) * int(config.accumulate) / rows))

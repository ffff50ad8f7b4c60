"""`--smoke`: any recipe, shrunk to about a minute; it proves that the way is open, not that the result is good."""

from collections.abc import Mapping

from pydantic import BaseModel

from edgeft.core.stage import Json
from edgeft.recipe.model import LatencyBar

_LIMIT = 40
TRIAL_MARGIN_PP = 100.0
"""Margin of candidates on validation: a few images can certify none, and the way through int8 is to be tried. The gates
of `verify` keep the recipe's margin."""
_SMALL: Mapping[str, Mapping[str, Json]] = {
    "data": {"limit": _LIMIT, "unlabelled_limit": 2 * _LIMIT},
    "finetune": {"epochs": 1, "views": 1},
    "distill": {"epochs": 1, "views": 1, "heal_epochs": 1, "trial_epochs": 1},
    "compress": {"calib_images": 32, "bias_images": 16, "search": False},
}
_STEPS, _EPOCHS = "steps", "epochs"
_LOOSE: Mapping[str, float] = {"max_escape": 0.1, "max_overkill": 0.1}
"""Smallest limits of decisions that a few validation images can hold."""


def shrink(block: str, values: Mapping[str, Json], config: type[BaseModel]) -> dict[str, Json]:
    """Return `values` with what makes a stage long set small, where its config has such a field.

    Args:
        block: the recipe's block.
        values: what the recipe wrote; not changed.
        config: the method's config class.
    """
    small = {name: value for name, value in _SMALL.get(block, {}).items() if name in config.model_fields}
    for name, value in small.items():
        written = values.get(name)
        if isinstance(written, int) and isinstance(value, int):
            small[name] = min(written, value)
    loose: dict[str, Json] = {
        name: max(limit, written) for name, limit in _LOOSE.items() if isinstance(written := values.get(name), float)
    }
    steps = values.get(_STEPS)
    if isinstance(steps, list):  # of a method made of methods
        loose[_STEPS] = [_few_epochs(step, small) if isinstance(step, dict) else step for step in steps]
    return {**values, **small, **loose}


def _few_epochs(step: Mapping[str, Json], small: Mapping[str, Json]) -> dict[str, Json]:
    return {name: small[_EPOCHS] if name == _EPOCHS and _EPOCHS in small else value for name, value in step.items()}


def shrink_latency(bar: LatencyBar) -> LatencyBar:
    """Return the bar with the fewest rounds that still give an interval."""
    return bar.model_copy(update={"rounds": (3,), "samples_per_round": 10})

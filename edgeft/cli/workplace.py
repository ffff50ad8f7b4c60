"""From what the user typed to a recipe and the folder where its finished stages are kept."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeft.recipe.model import Recipe

OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
CACHE_NAME = ".edgeft"


def open_recipe(
    path: Path,
    overrides: Sequence[str] | None,
    *,
    smoke: bool,
    seed: int | None,
    offline: bool = False,
    budget_ms: float | None = None,
) -> "Recipe":
    """Load the recipe at `path` with the command line's overrides applied; `budget_ms` asks for a student that fits.

    Raises:
        UsageError: the recipe or an override is wrong.
    """
    if offline:
        os.environ.update(dict.fromkeys(OFFLINE_VARIABLES, "1"))
    from edgeft.recipe.load import load_recipe

    seeded = [f"seed={seed}"] if seed is not None else []
    budget = ["distill.student=auto", f"distill.budget_ms={budget_ms}"] if budget_ms is not None else []
    return load_recipe(path, overrides=(*(overrides or ()), *seeded, *budget), smoke=smoke)


def cache_of(folder: Path, cache: Path | None) -> Path:
    """Return where a recipe in `folder` keeps its finished stages: `cache`, or .edgeft beside the recipe."""
    return cache or folder / CACHE_NAME

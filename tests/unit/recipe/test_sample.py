"""The samples' recipes are what the recipe room accepts."""

from pathlib import Path

import pytest

from edgeft.recipe.load import load_recipe

SAMPLES = sorted((Path(__file__).parents[3] / "samples").glob("*/recipe.yaml"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("smoke", [False, True])
def test_a_sample_recipe_is_accepted(path: Path, smoke: bool) -> None:  # noqa: FBT001 - a table
    recipe = load_recipe(path, smoke=smoke)
    assert recipe.bundle.name == path.parent.name.replace("_", "-")
    assert recipe.smoke is smoke

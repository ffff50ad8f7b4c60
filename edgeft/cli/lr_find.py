"""`edgeft lr-find`: which learning rate a method wants on these data."""

from typing import Annotated

import typer

from edgeft.cli.options import Cache, Folder, JsonFlag, Overrides, Seed, Smoke

_ROWS = 16
_WIDTH = 32


def lr_find(
    folder: Folder,
    overrides: Overrides = None,
    smoke: Smoke = False,
    steps: Annotated[int, typer.Option("--steps", min=13, help="Optimizer steps at least.")] = 100,
    lowest: Annotated[float, typer.Option("--from", metavar="RATE", help="First rate.")] = 1e-7,
    highest: Annotated[float, typer.Option("--to", metavar="RATE", help="Last rate.")] = 1.0,
    cache: Cache = None,
    seed: Seed = None,
    as_json: JsonFlag = False,
) -> None:
    """Find a learning rate: train while it rises, and watch the loss.

    Uses the recipe's own method, model and data (the data stage is run or reused); keeps nothing. The suggestion is a
    tenth of the rate at which the smoothed loss was lowest.

    Exit codes: 0 ok; 2 recipe, or a loss that never fell; 3 data; 4 environment.
    """
    from edgeft.cli.progress import narrate
    from edgeft.cli.tables import table
    from edgeft.cli.terminal import conclude, stdout_reserved
    from edgeft.cli.workplace import cache_of, open_recipe
    from edgeft.pipeline.lr_find import lr_find as run

    with stdout_reserved(), narrate() as emit:
        recipe = open_recipe(folder, overrides, smoke=smoke, seed=seed)
        stages = cache_of(recipe.folder, cache)
        found = run(recipe, cache=stages, steps=steps, lowest=lowest, highest=highest, emit=emit)
    count = len(found["rates"])
    shown = sorted({round(i * (count - 1) / (_ROWS - 1)) for i in range(_ROWS)})
    low, high = min(found["smoothed"]), max(found["smoothed"][i] for i in shown)
    rows = [
        (
            f"{found['rates'][i]:.1e}",
            f"{found['smoothed'][i]:.3f}",
            "#" * round(1 + (_WIDTH - 1) * (found["smoothed"][i] - low) / ((high - low) or 1)),
        )
        for i in shown
    ]
    ending = "" if found["exploded"] else "; the loss did not explode, try a higher --to"
    told = [
        table(("rate", "loss", ""), rows, right=("rate", "loss")),
        "",
        f"lowest      {found['lowest']:.1e}{ending}",
        f"steepest    {found['steepest']:.1e}",
        f"suggestion  {found['suggestion']:.1e} (the recipe has {found['lr']:.1e})",
        "",
        f"try         edgeft build {folder} --set finetune.lr={found['suggestion']:.1e}",
    ]
    conclude("\n".join(told), found, f"{found['suggestion']:.1e}", as_json=as_json)

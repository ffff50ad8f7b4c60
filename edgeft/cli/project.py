"""`edgeft init`, `edgeft runs`, `edgeft targets`, `edgeft schema` and `edgeft doctor`: around a build."""

from pathlib import Path
from typing import Annotated

import typer

from edgeft.cli.options import Cache, JsonFlag


def init(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A folder of class folders, or a table of paths and labels.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The recipe to write. [default: recipe.yaml in DATA's folder]"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look at data and write a commented recipe for it."""
    from edgeft.cli.sketch import recipe_text
    from edgeft.cli.survey import survey
    from edgeft.cli.terminal import note, print_json
    from edgeft.core.atomic import write_atomic
    from edgeft.core.errors import UsageError

    found = survey(data)
    target = out or (data if data.is_dir() else data.parent) / "recipe.yaml"
    if target.exists():
        raise UsageError(f"{target} exists and is not overwritten", hint="name another file with --out")
    write_atomic(target, recipe_text(found, data, target))
    if as_json:
        print_json({"status": "ok", "exit_code": 0, "recipe": target, "found": found.to_json()})
        return
    note(f"{found.n} images; look at the recipe, then: edgeft plan {target}")
    typer.echo(target)


def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The recipe's folder.")] = Path(),
    cache: Cache = None,
    as_json: JsonFlag = False,
) -> None:
    """List the builds kept in a cache, the latest last."""
    from edgeft.cli.history import history, history_text
    from edgeft.cli.terminal import print_json
    from edgeft.cli.workplace import cache_of

    listed = history(cache_of(folder, cache))
    if as_json:
        print_json({"status": "ok", "exit_code": 0, "runs": listed})
    else:
        typer.echo(history_text(listed))


def targets(as_json: JsonFlag = False) -> None:
    """List the runtimes that a model can be made for.

    With what each takes in int8, and whether it works here; if not, why. `lower.targets` in a recipe and
    `edgeft quantize --target` take these names.
    """
    from edgeft.cli.target_table import targets_text
    from edgeft.cli.terminal import print_json
    from edgeft.pipeline.targets import targets as find

    listed = [item.to_json() for item in find()]
    if as_json:
        print_json({"status": "ok", "exit_code": 0, "targets": listed})
    else:
        typer.echo(targets_text(listed))


def schema(as_json: JsonFlag = False) -> None:
    """Print the recipe's JSON Schema, for editors and checks."""
    from edgeft.cli.terminal import print_json
    from edgeft.recipe.schema import json_schema

    found = json_schema()
    print_json({"status": "ok", "exit_code": 0, "schema": found} if as_json else found)


def doctor(cache: Cache = None, as_json: JsonFlag = False) -> int:
    """Say what is installed and what this machine can do.

    Also what its instruction set means for int8 arithmetic.

    Exit codes: 0 edgeft can run here, 4 something it needs is missing.
    """
    from edgeft.cli.diagnosis import diagnose, diagnosis_text
    from edgeft.cli.terminal import print_json, stdout_reserved
    from edgeft.cli.workplace import cache_of

    with stdout_reserved():
        found = diagnose(cache_of(Path(), cache))
    if as_json:
        print_json(found)
    else:
        typer.echo(diagnosis_text(found))
    return int(found["exit_code"])

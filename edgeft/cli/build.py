"""`edgeft build` and `edgeft plan`."""

from pathlib import Path
from typing import Annotated

import typer

from edgeft.cli.options import Cache, Folder, JsonFlag, Overrides, Seed, Smoke


def build(
    folder: Folder,
    overrides: Overrides = None,
    smoke: Smoke = False,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Leave the latency gate out.")] = False,
    cache: Cache = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the bundle goes. [default: dist beside the recipe]"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 7 where a gate is INCONCLUSIVE.")] = False,
    seed: Seed = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Open no socket, even where the recipe names a hub.")
    ] = False,
    as_json: JsonFlag = False,
) -> int:
    """Run the recipe: from data and a pretrained model to a verified bundle.

    Finished stages are reused; a build that was stopped goes on with the same command.
    Exit codes: 0 ok, 2 recipe, 3 data, 4 environment, 5 accuracy gate, 6 latency gate, 7 inconclusive (--strict),
    130 interrupted.
    """
    from edgeft.cli.progress import narrate
    from edgeft.cli.summary import build_object, build_text
    from edgeft.cli.terminal import note, print_json, stdout_reserved
    from edgeft.cli.workplace import cache_of, open_recipe
    from edgeft.pipeline.build import build as run_build

    recipe = open_recipe(folder, overrides, smoke=smoke, seed=seed, offline=offline)
    with stdout_reserved(), narrate() as emit:
        record = run_build(
            recipe, cache=cache_of(folder, cache), out=out, latency=not no_latency, emit=emit, strict=strict
        )
    shown = record.to_json()
    note(build_text(shown))
    if as_json:
        print_json(build_object(shown))
    else:
        typer.echo(shown["bundle"])
    return record.exit_code

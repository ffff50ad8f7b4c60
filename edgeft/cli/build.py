"""`edgeft build` and `edgeft plan`."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from edgeft.cli.ci import Github, Junit, Summary
from edgeft.cli.options import BudgetMs, Cache, Device, Folder, JsonFlag, Overrides, Seed, Smoke, SshConfig, Strict

NoLatency = Annotated[bool, typer.Option("--no-latency", help="Leave the latency gate out.")]

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Where the bundle goes. [default: dist/NAME beside the recipe]"),
]


def build(
    folder: Folder,
    overrides: Overrides = None,
    smoke: Smoke = False,
    no_latency: NoLatency = False,
    cache: Cache = None,
    out: Out = None,
    strict: Strict = False,
    seed: Seed = None,
    budget_ms: BudgetMs = None,
    adapters: Annotated[
        Path | None,
        typer.Option(
            "--adapters", metavar="DIR", help="Copy the adapters that were trained to DIR, for `edgeft merge`."
        ),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(
            "--sign",
            metavar="KEY.pem",
            help="Sign the bundle with this elliptic-curve key; EDGEFT_SIGN_PASSWORD opens a locked one.",
        ),
    ] = None,
    device: Device = "local",
    ssh_config: SshConfig = None,
    offline: Annotated[bool, typer.Option("--offline", help="Open no socket, even for a hub model.")] = False,
    junit: Junit = None,
    summary: Summary = None,
    github: Github = False,
    as_json: JsonFlag = False,
) -> int:
    """Turn data and a pretrained model into a verified bundle.

    Finished stages are reused; a build that was stopped goes on with the same command. With --device, candidates and
    what ships are timed on that machine, and the bundle is replayed there; training stays here.

    Exit codes: 0 ok; 2 recipe; 3 data; 4 environment or device; 5 accuracy gate; 6 latency gate; 7 inconclusive under
    --strict; 8 the bundle decides otherwise on the device; 130 interrupted, resumable.
    """
    from edgeft.bundle.sign import SigningKey
    from edgeft.cli.ci import tell
    from edgeft.cli.known import address_of
    from edgeft.cli.progress import narrate
    from edgeft.cli.summary import build_object, build_text
    from edgeft.cli.terminal import conclude, stdout_reserved
    from edgeft.cli.workplace import cache_of, open_recipe
    from edgeft.pipeline.build import build as run_build
    from edgeft.pipeline.device.place import place_of

    with stdout_reserved(), narrate() as emit:
        recipe = open_recipe(folder, overrides, smoke=smoke, seed=seed, offline=offline, budget_ms=budget_ms)
        stages = cache_of(recipe.folder, cache)
        record = run_build(
            recipe,
            cache=stages,
            out=out,
            latency=not no_latency,
            emit=emit,
            strict=strict,
            adapters=adapters,
            key=None if sign is None else SigningKey(sign, os.environ.get("EDGEFT_SIGN_PASSWORD")),
            device=place_of(address_of(device), ssh_config, emit),
        ).to_json()
    tell(record, junit=junit, summary=summary, github=github)
    conclude(build_text(record), build_object(record), record["bundle"], as_json=as_json)
    return int(record["exit_code"])


def plan(
    folder: Folder,
    overrides: Overrides = None,
    smoke: Smoke = False,
    no_latency: NoLatency = False,
    cache: Cache = None,
    seed: Seed = None,
    budget_ms: BudgetMs = None,
    device: Device = "local",
    ssh_config: SshConfig = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Print the recipe with every default as YAML.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say what a build would run, and why.

    Also how long it would take, and what accuracy margin the test split can certify. With --device, what a build that
    measures on that machine would run: it is asked what it is, and nothing else.
    """
    from edgeft.cli.known import address_of
    from edgeft.cli.progress import narrate
    from edgeft.cli.summary import plan_object, plan_text
    from edgeft.cli.terminal import note, print_json, stdout_reserved
    from edgeft.cli.workplace import cache_of, open_recipe
    from edgeft.core.store import Store
    from edgeft.pipeline.device.place import asked, place_of
    from edgeft.recipe.plan import make_plan

    with stdout_reserved(), narrate() as emit:
        recipe = open_recipe(folder, overrides, smoke=smoke, seed=seed, budget_ms=budget_ms)
        store = Store(cache_of(recipe.folder, cache))
        fingerprint = partial(
            asked,
            place_of(address_of(device), ssh_config, emit),
            texts=bool(getattr(recipe.model, "takes_texts", False)),
        )
        found = make_plan(recipe, store, latency=not no_latency, device=fingerprint).to_json()
    if as_json:
        print_json(plan_object(found))
    elif resolved:
        import yaml

        note(plan_text(found))
        typer.echo(yaml.safe_dump(found["recipe"], sort_keys=False, allow_unicode=True), nl=False)
    else:
        typer.echo(plan_text(found))

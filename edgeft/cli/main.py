"""The entry point: every verb by name."""

import os
from typing import Annotated

import typer

from edgeft import __version__
from edgeft.cli.activate import activate, rollback
from edgeft.cli.build import build, plan
from edgeft.cli.device import inspect, predict, verify
from edgeft.cli.devices import devices
from edgeft.cli.gate import bench, compare
from edgeft.cli.group import TRACEBACK_FLAG, TRACEBACK_VARIABLE, Verbs
from edgeft.cli.lr_find import lr_find
from edgeft.cli.merge import merge
from edgeft.cli.project import doctor, init, runs, schema, targets
from edgeft.cli.quantize import quantize
from edgeft.cli.serve import serve

app = typer.Typer(
    name="edgeft",
    cls=Verbs,
    rich_markup_mode=None,  # Typer's rich help costs more CPU than everything else in --help together
    add_completion=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback acts
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    show_traceback: Annotated[  # noqa: ARG001 - the group reads it, wherever it stands
        bool,
        typer.Option(TRACEBACK_FLAG, envvar=TRACEBACK_VARIABLE, help="Show where an error came from."),
    ] = False,
) -> None:
    """Turn a pretrained model, labelled data and a device budget into a verified artifact."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


for verb in (
    build,
    plan,
    lr_find,
    merge,
    quantize,
    verify,
    bench,
    compare,
    predict,
    serve,
    inspect,
    activate,
    rollback,
    targets,
    runs,
    doctor,
    schema,
    init,
):
    app.command()(verb)

app.add_typer(devices)


def main() -> None:
    """Run the command line on `sys.argv` and exit."""
    # Read once, when torch is first imported. Threads that wait by spinning cost a training step 4.9 s instead of 3.0 s
    # where another process keeps one of two cores busy, and gain nothing on a quiet machine (1.9 s either way).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    app()

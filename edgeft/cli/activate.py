"""`edgeft activate` and `edgeft rollback`: which bundle the device runs."""

from pathlib import Path
from typing import Annotated

import typer

from edgeft.cli.options import Bundle, JsonFlag, RequireSignature, Threads

Root = Annotated[
    Path,
    typer.Option("--root", metavar="DIR", envvar="EDGEFT_ROOT", help="The device's folder of bundles."),
]

ROOT = Path("/var/lib/edgeft")


def activate(
    bundle: Bundle,
    root: Root = ROOT,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Earlier versions to keep for a rollback.")] = 3,
    require_signature: RequireSignature = None,
    threads: Threads = 1,
    as_json: JsonFlag = False,
) -> None:
    """Make a bundle the one that this device runs.

    Copies it to DIR/NAME, checks the copy as `edgeft verify` does, and switches DIR/NAME/current to it in one step: a
    power cut at any moment leaves the old or the new. What runs loads DIR/NAME/current.

    Exit codes: 0 ok; 4 the bundle cannot be read, or DIR cannot be written; 8 it is damaged, decides otherwise here, or
    is not signed as asked. Whatever fails, the version that was active stays.
    """
    from edgeft.bundle.activate import activate as switch
    from edgeft.cli.progress import narrate
    from edgeft.cli.switched import tell
    from edgeft.cli.terminal import stdout_reserved

    with stdout_reserved(), narrate() as emit:
        found = switch(bundle, root, keep=keep, public_key=require_signature, threads=threads, emit=emit)
    tell(found.to_json(), as_json=as_json)


def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The bundle's name.")],
    root: Root = ROOT,
    require_signature: RequireSignature = None,
    threads: Threads = 1,
    as_json: JsonFlag = False,
) -> None:
    """Go back to the version that was active before.

    It is checked first; where it is damaged, the current one stays.

    Exit codes: 0 ok; 2 nothing of that name is active, or there is no earlier version; 4 DIR cannot be written; 8 the
    earlier version is damaged or not signed as asked.
    """
    from edgeft.bundle.activate import rollback as switch
    from edgeft.cli.progress import narrate
    from edgeft.cli.switched import tell
    from edgeft.cli.terminal import stdout_reserved

    with stdout_reserved(), narrate() as emit:
        found = switch(name, root, public_key=require_signature, threads=threads, emit=emit)
    tell(found.to_json(), as_json=as_json)

"""`edgeft verify`, `edgeft predict` and `edgeft inspect`: the device's verbs, which need no training library."""

from pathlib import Path
from typing import Annotated

import typer

from edgeft.cli.options import Bundle, JsonFlag, Threads


def verify(bundle: Bundle, threads: Threads = 1, as_json: JsonFlag = False) -> None:
    """Check a bundle on this device.

    Digests first, then its golden vectors are replayed through this device's decoder and runtime.

    Exit codes: 0 ok; 4 the folder cannot be read; 8 a file or an output is not what the build signed off.
    """
    from edgeft.bundle.check import check
    from edgeft.cli.decisions import check_text
    from edgeft.cli.terminal import print_json, stdout_reserved

    with stdout_reserved():
        found = check(bundle, threads=threads).to_json()
    if as_json:
        print_json({"status": "ok", "exit_code": 0, **found})
    else:
        typer.echo(check_text(found))


def predict(
    bundle: Bundle,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files.")],
    threads: Threads = 1,
    as_json: JsonFlag = False,
) -> None:
    """Classify image files with a bundle.

    Prints path, label and score, one line for each image, separated by tabs. An image that cannot be read ends the
    command with exit code 3: none is skipped.
    """
    from edgeft.cli.decisions import decision_line, decision_object
    from edgeft.cli.terminal import print_json, stdout_reserved
    from edgeft.runtime import load

    with stdout_reserved():
        predictor = load(bundle, threads=threads)
    if as_json:
        rows = [decision_object(item, predictor.classes) for item in predictor.predict(images)]
        print_json({"status": "ok", "exit_code": 0, "bundle": bundle, "predictions": rows})
        return
    for image in images:
        typer.echo(decision_line(predictor.predict([image])[0]))


def inspect(
    thing: Annotated[Path, typer.Argument(metavar="MODEL.onnx|BUNDLE|DATA", help="What to look into.")],
    as_json: JsonFlag = False,
) -> None:
    """Show what is inside a model, a bundle, or data."""
    from edgeft.cli.contents import contents, contents_text
    from edgeft.cli.terminal import print_json, stdout_reserved

    with stdout_reserved():
        found = contents(thing)
    if as_json:
        print_json({"status": "ok", "exit_code": 0, **found})
    else:
        typer.echo(contents_text(found))

"""`edgeft verify`, `edgeft predict` and `edgeft inspect`: the device's verbs, which need no training library."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeft.cli.options import Bundle, Device, JsonFlag, Mean, RequireSignature, SshConfig, Std, Threads


def verify(
    bundle: Bundle,
    require_signature: RequireSignature = None,
    device: Device = "local",
    ssh_config: SshConfig = None,
    threads: Threads = 1,
    as_json: JsonFlag = False,
) -> None:
    """Check a bundle on this device, or on another.

    The signature comes first where one is asked for, then digests; then its golden vectors are replayed through the
    device's decoder and runtime.

    Exit codes: 0 ok; 4 the folder cannot be read, or the device not be reached; 8 a file, an output or the signature is
    not what it must be.
    """
    from edgeft.cli.decisions import check_text
    from edgeft.cli.terminal import print_json, stdout_reserved

    with stdout_reserved():
        found = _checked(bundle, device, ssh_config, require_signature, threads)
    if as_json:
        print_json({"status": "ok", "exit_code": 0, **found})
    else:
        typer.echo(check_text(found))


def _checked(
    bundle: Path, device: str, ssh_config: Path | None, public_key: Path | None, threads: int
) -> dict[str, Any]:
    from edgeft.pipeline.device.address import LOCAL

    if device == LOCAL:
        from edgeft.bundle.check import check

        return {**check(bundle, threads=threads, public_key=public_key).to_json()}
    from edgeft.cli.known import address_of
    from edgeft.pipeline.device.address import Device as Reached
    from edgeft.pipeline.device.remote import check as check_there

    reached = Reached.parse(address_of(device), ssh_config)
    return check_there(bundle, reached, threads=threads, public_key=public_key)


def predict(
    bundle: Bundle,
    sources: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Image files; or texts, - reads one a line from stdin.")
    ],
    require_signature: RequireSignature = None,
    threads: Threads = 1,
    as_json: JsonFlag = False,
) -> None:
    """Classify image files, or texts, with a bundle.

    Prints path or text, label and score, one line for each, separated by tabs, and REVIEW where a person should look
    (see `decide` in the recipe). Two texts that are judged together are separated by a tab. An image that cannot be
    read, or an empty text, ends the command with exit code 3: none is skipped.
    """
    from edgeft.cli.decisions import decision_line, decision_object, inputs
    from edgeft.cli.terminal import print_json, stdout_reserved
    from edgeft.runtime import load

    with stdout_reserved():
        predictor = load(bundle, threads=threads, public_key=require_signature)
    listed = inputs(sources, texts=predictor.takes_texts)
    if as_json:
        rows = [decision_object(item, predictor.predict([item])[0], predictor.classes) for item in listed]
        print_json({"status": "ok", "exit_code": 0, "bundle": bundle, "predictions": rows})
        return
    for item in listed:
        typer.echo(decision_line(item, predictor.predict([item])[0]))


def inspect(
    thing: Annotated[Path, typer.Argument(metavar="MODEL.onnx|BUNDLE|DATA", help="What to look into.")],
    against: Annotated[
        Path | None,
        typer.Option(
            "--against", metavar="BASE.onnx", help="Where does MODEL part from BASE, layer by layer, and why?"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--input", metavar="DATA", help="Of --against: an .npz or .npy as the model takes it, or images."),
    ] = None,
    most: Annotated[int, typer.Option("--images", metavar="N", min=1, help="Of --against: inputs at most.")] = 64,
    mean: Mean = None,
    std: Std = None,
    bisect: Annotated[
        Path | None,
        typer.Option("--bisect", metavar="DIR", help="Of --against: write the smallest graph that shows the fault."),
    ] = None,
    threads: Threads = 1,
    as_json: JsonFlag = False,
) -> None:
    """Show what is inside a model, a bundle or data.

    With --against it tells where a model parts from another: every tensor is compared, and each layer alone, fed with
    the other graph's tensors. Layers at fault are named with the kind of fault, the command expected to mend it, and
    its predicted effect.
    """
    from edgeft.cli.contents import contents, contents_text
    from edgeft.cli.terminal import print_json, stdout_reserved
    from edgeft.core.errors import UsageError

    if against is None and (data is not None or bisect is not None):
        raise UsageError("--input and --bisect compare two models", hint="add --against BASE.onnx")
    if against is not None:
        found = _parted(thing, against, data, most, (mean, std), bisect, threads)
        if as_json:
            print_json({"status": "ok", "exit_code": 0, **found})
        else:
            from edgeft.cli.parted import parted_text

            typer.echo(parted_text(found))
        return
    with stdout_reserved():
        found = contents(thing)
    if as_json:
        print_json({"status": "ok", "exit_code": 0, **found})
    else:
        typer.echo(contents_text(found))


def _parted(
    new: Path,
    base: Path,
    data: Path | None,
    most: int,
    normalisation: tuple[str | None, str | None],
    bisect: Path | None,
    threads: int,
) -> dict[str, Any]:
    from tempfile import TemporaryDirectory

    from edgeft import catalog
    from edgeft.cli.numbers import numbers
    from edgeft.cli.progress import narrate
    from edgeft.cli.terminal import stdout_reserved
    from edgeft.core.errors import UsageError

    if data is None:
        raise UsageError("--against compares two models on inputs, and none were given", hint="add --input DATA")
    for path in (new, base):
        if path.suffix != ".onnx":
            raise UsageError(f"{path}: --against compares two .onnx files", hint="a bundle's is BUNDLE/model.onnx")
    mean, std = (numbers(option, text) for option, text in zip(("--mean", "--std"), normalisation, strict=True))
    with stdout_reserved(), narrate() as emit, TemporaryDirectory(prefix="edgeft-inspect-") as folder:
        found: dict[str, Any] = catalog.resolve("edgeft.parity.inspect:inspect")(
            base, new, data, Path(folder), most=most, mean=mean, std=std, threads=threads, bisect=bisect, emit=emit
        )
    return found

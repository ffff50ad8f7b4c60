"""What is asked of a device that OpenSSH reaches: its facts, a measurement, a check of a bundle, timings one by one.

Nothing has to be installed there but Python 3.11 with the base install's libraries: edgeft's code goes with each job
(see `connection`), and what was sent is removed there.
"""

from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import DeviceError, IntegrityError, UsageError
from edgeft.core.events import EventSink, ignore
from edgeft.pipeline.device.address import Device
from edgeft.pipeline.device.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgeft.runtime.worker import Request, Timing


def facts(device: Device) -> dict[str, Any]:
    """Return what `device` is and which libraries it has, see `needs.device_facts`.

    Raises:
        DeviceError: it cannot be reached, or has no Python 3.11.
    """
    with Connection(device, {"kind": "facts"}, {}) as connection:
        found: dict[str, Any] = connection.answer()["facts"]
    return found


def measure(
    path: Path, device: Device, options: "Mapping[str, Any]", baseline: Path | None, emit: EventSink
) -> dict[str, Any]:
    """Measure `path` on `device`; the record, and the file `baseline` where there shall be one, are made there.

    Args:
        path: a bundle or an .onnx file.
        device: where.
        options: of `pipeline.bench.measure` there, by name.
        baseline: where the baseline is written here.
        emit: where events go.

    Raises:
        DeviceError: the device cannot be reached, vanishes, or lacks something.
        EdgeftError: what the measurement there raised.
    """
    subject = f"subject/{path.name}"
    job = {"kind": "bench", "subject": subject, "options": options, "baseline": baseline is not None}
    with Connection(device, job, {subject: path}, emit) as connection:
        answer = connection.answer()
    if baseline is not None:
        write_atomic(baseline, str(answer["baseline"]))
    record: dict[str, Any] = answer["record"]
    record["subject"]["path"] = str(path)
    return {**record, "device": device.text, "baseline": None if baseline is None else str(baseline)}


def check(
    bundle: Path, device: Device, *, threads: int = 1, public_key: Path | None = None, emit: EventSink = ignore
) -> dict[str, Any]:
    """Check `bundle` on `device` and return what `edgeft.bundle.check` found there, as JSON values.

    Args:
        bundle: the folder.
        device: where.
        threads: intra-op threads of the replay.
        public_key: whose signature it must carry; that is checked here, since the key stays here.
        emit: where events go.

    Raises:
        IntegrityError: a file or an output there is not the build's, or the signature does not hold.
        DeviceError: the device cannot be reached, vanishes, or lacks something; or the bundle cannot be read.
    """
    signed: dict[str, Any] = {}
    manifest = None
    if public_key is not None:
        from edgeft.runtime.manifest import read_files

        manifest, _ = read_files(bundle, public_key)
        signed = {"signature": "verified"}
    subject = f"subject/{bundle.name}"
    with Connection(device, {"kind": "verify", "subject": subject, "threads": threads}, {subject: bundle}, emit) as it:
        found: dict[str, Any] = it.answer()["check"]
    if manifest is not None and found["content_digest"] != manifest.content_digest:
        raise IntegrityError(f"{bundle}: it was exchanged between the check of its signature and the sending")
    notes = list(found["notes"])
    if signed:
        notes = [note for note in notes if not note.startswith("it is signed")]
        notes.append("the signature was checked here, before the bundle was sent")
    return {**found, **signed, "bundle": str(bundle), "device": device.text, "notes": notes}


@contextmanager
def launching(
    device: Device, requests: "Sequence[Request]", emit: EventSink = ignore
) -> "Iterator[Callable[[Request], Timing]]":
    """Send what `requests` read to `device`, and give what times one of them there, in a fresh process, at a call.

    A call raises DeviceError where the process failed or the connection is gone.

    Raises:
        UsageError: a request is for a runtime that is not onnxruntime.
        DeviceError: the device cannot be reached, or lacks something.
    """
    from edgeft.runtime.worker import Timing

    foreign = next((request.exporter for request in requests if request.exporter is not None), None)
    if foreign is not None:
        raise UsageError(
            f"--device {device.text}: models are timed there in onnxruntime alone, not through {foreign}",
            hint="build with lower.targets: [onnx], or on the device itself",
        )
    named = _named(requests)
    with Connection(device, {"kind": "time"}, {inside: Path(path) for path, inside in named.items()}, emit) as there:

        def launch(request: "Request") -> Timing:
            there.tell(asdict(_there(request, named)))
            answer = there.answer()
            if "timing" not in answer:
                raise DeviceError(f"{device.text}: answered {sorted(answer)} to a request to time a model")
            return Timing(**answer["timing"])

        yield launch
        there.tell({"end": 1})
        there.answer()


def _named(requests: "Sequence[Request]") -> dict[str, str]:
    """Return where each file that the requests read lies on the device, by its path here."""
    read = [
        path
        for request in requests
        for path in (request.model, request.inputs, request.tokenizer, *request.images)
        if path is not None
    ]
    return {path: f"files/{index}/{Path(path).name}" for index, path in enumerate(dict.fromkeys(read))}


def _there(request: "Request", named: dict[str, str]) -> "Request":
    return replace(
        request,
        model=named[request.model],
        inputs=None if request.inputs is None else named[request.inputs],
        tokenizer=None if request.tokenizer is None else named[request.tokenizer],
        images=tuple(named[image] for image in request.images),
    )

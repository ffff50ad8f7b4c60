"""`edgeft bench`: one model on this device, and where asked for the baseline that a later one is held against."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgeft.core import machine
from edgeft.core.disk import require_writable
from edgeft.core.errors import UsageError
from edgeft.core.events import EventSink, ignore
from edgeft.pipeline import baseline as stored
from edgeft.pipeline.compare import BASELINE_ROUNDS, Launch, against_reference, evaluation_digest
from edgeft.pipeline.device.address import LOCAL, Device
from edgeft.pipeline.record import new_run
from edgeft.pipeline.subject import GOLDEN_INPUT, NOISE_INPUT, open_subject, read_labelled, requests
from edgeft.runtime.bench import Mode
from edgeft.runtime.bench import bench as run_bench
from edgeft.runtime.launch import launch
from edgeft.verify.accuracy import check_scores

KIND = "bench"
_MAX_SECONDS = 60.0
"""Of one process: slow models give fewer samples, at least five."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a model is measured; see `edgeft bench --help`."""

    mode: Mode = "single"
    inputs: str | None = None
    period_ms: float | None = None
    seconds: float = 60.0
    processes: int = 5
    samples: int = 60
    threads: int = 1
    spinning: bool = False
    evaluation: Path | None = None
    baseline: Path | None = None
    device: str = LOCAL
    ssh_config: Path | None = None


def require_local(device: str) -> None:
    """Refuse another device.

    Raises:
        UsageError: it is not this machine.
    """
    if device != LOCAL:
        raise UsageError(
            f"--device {device}: two models are compared on one machine, this one",
            hint=f"edgeft bench BASE --device {device} --save-baseline FILE, and compare with it there",
        )


def measure(path: Path, options: Options, *, emit: EventSink = ignore, run: Launch = launch) -> dict[str, Any]:
    """Return the record of measuring `path`, a bundle or an .onnx file; write the baseline that was asked for.

    Raises:
        UsageError: options contradict each other, or the device's address is none.
        DataError: evaluation data does not fit.
        IntegrityError: the bundle was changed.
        DeviceError: a process failed, or the baseline cannot be written.
    """
    if options.evaluation is not None and options.baseline is None:
        raise UsageError("--eval is kept in a baseline, and none was asked for", hint="add --save-baseline FILE.json")
    if options.baseline is not None:
        if not stored.is_baseline(options.baseline):
            raise UsageError(f"--save-baseline {options.baseline}: a baseline's name ends with .json")
        require_writable(options.baseline.absolute().parent, purpose="the baseline", option="--save-baseline")
    if options.device != LOCAL:
        return _on_device(path, options, emit)
    began = time.perf_counter()
    name, started = new_run()
    subject = open_subject(path)
    scores, digest = None, None
    if options.evaluation is not None:
        arrays, labels = read_labelled(options.evaluation, subject)
        scores, digest = subject.scores(arrays, options.threads).astype(float), evaluation_digest(arrays, labels)
        check_scores("accuracy", labels, scores, scores.shape[1])
    with TemporaryDirectory(prefix="edgeft-bench-") as folder:
        request, raw = requests(
            subject,
            options.inputs,
            Path(folder),
            threads=options.threads,
            spinning=options.spinning,
            samples=options.samples,
            seconds=_MAX_SECONDS,
        )
        found = run_bench(
            request,
            raw,
            mode=options.mode,
            processes=options.processes,
            period_ms=options.period_ms,
            seconds=options.seconds,
            emit=emit,
            run=run,
        )
        kept = None
        if options.baseline is not None:
            kept = against_reference(request, BASELINE_ROUNDS, emit, run)
        key = stored.key(options.threads, spinning=options.spinning, inputs=Path(request.inputs or "noise").name)
    record: dict[str, Any] = {
        "schema": 1,
        "kind": KIND,
        "status": "ok",
        "exit_code": 0,
        "run": name,
        "subject": subject.to_json(),
        "bench": found.to_json(),
        "baseline": None if options.baseline is None else str(options.baseline),
        "machine": machine.facts(),
        "versions": stored.runtime_versions(),
        "started": started,
        "seconds": time.perf_counter() - began,
    }
    if options.baseline is not None and kept is not None:
        stored.save(
            options.baseline,
            stored.Baseline(subject.to_json(), key, kept[0], kept[1], scores, digest, record["bench"]),
        )
    return record


def _on_device(path: Path, options: Options, emit: EventSink) -> dict[str, Any]:
    from edgeft.pipeline.device import remote

    device = Device.parse(options.device, options.ssh_config)
    if options.inputs not in (None, GOLDEN_INPUT, NOISE_INPUT) or options.evaluation is not None:
        raise UsageError(
            f"--device {device.text} measures on golden images or texts, or on noise",
            hint="leave --input and --eval out; what a bundle holds goes with it",
        )
    there = {**asdict(options), "device": LOCAL, "ssh_config": None, "evaluation": None, "baseline": None}
    return remote.measure(path, device, there, options.baseline, emit)

"""`edgeft compare`: is a new model slower, or worse, than the one before it?

Latency: ABBA rounds of fresh processes; against a stored baseline both days' rounds stand against one reference graph.
Accuracy: a paired non-inferiority test on labelled data. A gate that nothing was given for is not judged, and the
record says so.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeft.core import machine
from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DataError, UsageError
from edgeft.core.events import EventSink, Message, ignore
from edgeft.core.record import Gate, Verdict
from edgeft.pipeline import baseline as stored
from edgeft.pipeline import gates as judged
from edgeft.pipeline.record import new_run
from edgeft.pipeline.subject import Subject, open_subject, read_labelled, requests, require_alike
from edgeft.runtime.abba import LatencyComparison, compare_requests
from edgeft.runtime.encode import Feeds
from edgeft.runtime.launch import launch
from edgeft.runtime.worker import Request, Timing
from edgeft.verify.decision import Decision
from edgeft.verify.latency import LOOKS, MIN_ROUNDS, PairedRuns, Ratio, look_tail, ratio_to_baseline, round_logs
from edgeft.verify.verdicts import below

KIND = "compare"
BASELINE_ROUNDS = 15
SAMPLES, SECONDS = 30, 3.0
_SEED = 0

Launch = Callable[[Request], Timing]


@dataclass(frozen=True, slots=True)
class Options:
    """How two models are compared.

    Args:
        max_slowdown: as a share: 0.05 lets the new model take 5 % longer.
        max_drop_pp: of `metric`, in percentage points.
        metric: one of `edgeft.verify.accuracy.METRICS`.
        evaluation: labelled data; None judges no accuracy.
        inputs: what is timed, see `subject.requests`.
        threads: intra-op threads.
        spinning: whether idle threads spin.
        rounds: numbers of rounds after which a verdict is sought.
        latency: whether to time.
        strict: whether what cannot be decided makes the exit code 7.
    """

    max_slowdown: float = 0.05
    max_drop_pp: float = 0.5
    metric: str = "accuracy"
    evaluation: Path | None = None
    inputs: str | None = None
    threads: int = 1
    spinning: bool = False
    rounds: tuple[int, ...] = LOOKS
    latency: bool = True
    strict: bool = False


def compare(
    base: Path, new: Path, options: Options, *, emit: EventSink = ignore, run: Launch = launch
) -> dict[str, Any]:
    """Return the record of comparing `new` with `base`, a bundle, an .onnx file or a stored baseline (.json).

    Raises:
        UsageError: nothing was asked for, or the baseline is from another device, other versions or settings.
        DataError: the two are of different tasks, or the data does not fit.
        IntegrityError: a bundle or the baseline was changed.
        DeviceError: a timing process failed.
    """
    if not options.latency and options.evaluation is None:
        raise UsageError("nothing to compare: latency is left out and there is no data", hint="give --eval DATA")
    began = time.perf_counter()
    name, started = new_run()
    subject = open_subject(new)
    old = stored.load(base) if stored.is_baseline(base) else open_subject(base)
    if isinstance(old, Subject):
        require_alike(old, subject)
    else:
        _require_same_task(base, old, subject)
    gates: list[Gate] = []
    found: dict[str, Any] = {}
    if options.evaluation is not None:
        accuracy, gate = _accuracy(base, old, subject, options)
        found["accuracy"] = accuracy
        gates.append(gate)
    if options.latency:
        with TemporaryDirectory(prefix="edgeft-compare-") as folder:
            latency, gate = _latency(base, old, subject, options, Path(folder), emit, run)
        found["latency"] = latency
        gates.append(gate)
    status, exit_code = judged.status(gates, strict=options.strict)
    unjudged = [] if options.latency else ["latency was left out"]
    unjudged += [] if options.evaluation else ["accuracy was not compared: no --eval data was given"]
    return {
        "schema": 1,
        "kind": KIND,
        "name": f"{subject.name} against {_name(old)}",
        "run": name,
        "status": status,
        "exit_code": exit_code,
        "base": old.to_json() if isinstance(old, Subject) else {**old.subject, "baseline": str(base)},
        "new": subject.to_json(),
        "gates": [asdict(gate) for gate in gates],
        "notes": unjudged,
        **found,
        "machine": machine.facts(),
        "versions": stored.runtime_versions(),
        "started": started,
        "seconds": time.perf_counter() - began,
        "seed": _SEED,
    }


def against_reference(
    request: Request, rounds: int, emit: EventSink, run: Launch
) -> tuple[npt.NDArray[np.float64], float]:
    """Return the round logs of a model against the reference graph, and its median in ms."""
    reference = replace(request, model=str(stored.REFERENCE), inputs=None, images=(), contract=None)
    measured = compare_requests(reference, request, max_ratio=float("inf"), rounds=(rounds,), emit=emit, run=run)
    return round_logs(*_medians(measured)), measured.new.median_ms


def evaluation_digest(arrays: Feeds, labels: npt.NDArray[np.int64]) -> str:
    """Return the digest of evaluation data: scores of other data are never paired."""
    stored = b"".join(np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays))
    return sha256_bytes(stored + labels.tobytes())


def _name(old: Subject | stored.Baseline) -> str:
    return old.name if isinstance(old, Subject) else f"the baseline of {old.subject['name']}"


def _require_same_task(path: Path, old: stored.Baseline, new: Subject) -> None:
    now = new.to_json()
    for what in ("input", "classes", "contract"):
        if old.subject[what] != now[what]:
            raise DataError(
                f"{path} and {new.path} cannot be compared: {what} {old.subject[what]} against {now[what]}",
                hint="compare models of one task",
            )


def _accuracy(
    path: Path, old: Subject | stored.Baseline, new: Subject, options: Options
) -> tuple[dict[str, Any], Gate]:
    from edgeft.verify.accuracy import metric_value
    from edgeft.verify.paired import judge_drop
    from edgeft.verify.power import images_needed

    evaluation = options.evaluation
    if evaluation is None:
        raise UsageError("accuracy needs labelled data", hint="give --eval DATA")
    arrays, labels = read_labelled(evaluation, new)
    scores = new.scores(arrays, options.threads)
    if isinstance(old, Subject):
        before, rule = old.scores(arrays, options.threads).astype(np.float64), old.decision
    else:
        if old.scores is None or old.evaluation != evaluation_digest(arrays, labels):
            other = "holds no scores" if old.scores is None else "holds scores of other data"
            raise UsageError(
                f"{path}: the baseline {other} than {evaluation}" if old.scores is not None else f"{path}: {other}",
                hint=f"edgeft bench BASE --eval {evaluation} --save-baseline {path}",
            )
        before, rule = old.scores, Decision.from_json(old.subject["decision"], tuple(old.subject["classes"]))
    k = scores.shape[1]
    absent = sorted(set(range(k)) - set(labels.tolist()))
    if options.metric != "accuracy" and absent and len(new.classes) == k:
        named = new.classes[absent[0]]
        raise DataError(f"{evaluation}: no image of the class {named!r}: {options.metric} needs every one")
    rules = (rule, new.decision)
    found = judge_drop(options.metric, labels, before, scores, k, _SEED, options.max_drop_pp, rules=rules)
    drop, changed, verdict, n = found.found, found.changed, found.verdict, len(labels)
    detail = f"drop of {options.metric} on {evaluation}; {changed} of {n} decisions changed"
    if verdict is Verdict.INCONCLUSIVE:
        needed = images_needed(options.max_drop_pp, max(changed, 1) / n)
        detail += f"; {needed} labelled images would certify {options.max_drop_pp:g} pp at this rate"
    interval = (drop.low_pp, drop.high_pp)
    gate = Gate(
        "accuracy", verdict, drop.value_pp, interval, options.max_drop_pp, "pp", n, detail, judged.ACCURACY_EXIT
    )
    values = {
        "metric": options.metric,
        "base": metric_value(options.metric, labels, rule.scores_for(options.metric, before), k),
        "new": metric_value(options.metric, labels, new.decision.scores_for(options.metric, scores), k),
        "drop_pp": drop.value_pp,
        "interval_pp": list(interval),
        "changed": changed,
        "n": n,
        "method": found.method,
    }
    return values, gate


def _latency(
    path: Path,
    old: Subject | stored.Baseline,
    new: Subject,
    options: Options,
    folder: Path,
    emit: EventSink,
    run: Launch,
) -> tuple[dict[str, Any], Gate]:
    request, raw = requests(
        new,
        options.inputs,
        folder,
        threads=options.threads,
        spinning=options.spinning,
        samples=SAMPLES,
        seconds=SECONDS,
    )
    limit = 1 + options.max_slowdown
    if isinstance(old, Subject):
        ends = None if raw is None else (replace(raw, model=str(old.model)), raw)
        measured = compare_requests(
            replace(request, model=str(old.model)),
            request,
            end_to_end=ends,
            max_ratio=limit,
            rounds=options.rounds,
            emit=emit,
            run=run,
        )
        return measured.to_json(), measured.gate("latency")
    here = stored.key(options.threads, spinning=options.spinning, inputs=Path(request.inputs or "noise").name)
    stored.require_same_key(path, old, here)
    return _against_baseline(old, request, limit, options, emit, run)


def _against_baseline(
    old: stored.Baseline, request: Request, limit: float, options: Options, emit: EventSink, run: Launch
) -> tuple[dict[str, Any], Gate]:
    """Add rounds against the reference until the ratio is clear of the limit; a FAIL is measured twice."""
    steps = [after - before for before, after in zip((0, *options.rounds), options.rounds, strict=False)]
    if min(steps, default=0) < MIN_ROUNDS:
        raise UsageError(
            f"latency rounds {list(options.rounds)}: against a baseline each look must add at least {MIN_ROUNDS}"
        )

    def seek() -> tuple[Verdict, Ratio, float]:
        logs = np.empty(0)
        verdict, found, median_ms = Verdict.INCONCLUSIVE, None, 0.0
        for look in options.rounds:
            more, median_ms = against_reference(request, look - len(logs), emit, run)
            logs = np.concatenate([logs, more])
            found = ratio_to_baseline(old.round_logs, logs, look_tail(look, options.rounds[-1]))
            verdict = below(found.low, found.high, limit)
            if verdict is not Verdict.INCONCLUSIVE:
                break
        if found is None:
            raise UsageError("no rounds were asked for")
        return verdict, found, median_ms

    verdict, found, median_ms = seek()
    confirmed = None
    if verdict is Verdict.FAIL:
        emit(Message("latency: the limit was missed; measuring a second time to be sure", warning=True))
        again, found, median_ms = seek()
        confirmed = again is Verdict.FAIL
        verdict = Verdict.FAIL if confirmed else Verdict.INCONCLUSIVE
    detail = (
        f"{median_ms:.2f} ms against {old.median_ms:.2f} ms in the baseline; {found.value:.3f} times as long "
        f"({found.low:.3f} to {found.high:.3f}, {found.rounds} rounds against the reference graph)"
    )
    if confirmed is False:
        detail += "; a first set of rounds missed the limit, a second did not"
    elif verdict is Verdict.INCONCLUSIVE:
        detail += "; too close or too noisy to tell: give the old bundle itself as BASE"
    interval = (found.low, found.high)
    gate = Gate("latency", verdict, found.value, interval, limit, "ratio", found.rounds, detail, judged.LATENCY_EXIT)
    values = {
        "ratio": found.value,
        "interval": list(interval),
        "rounds": found.rounds,
        "max_ratio": limit,
        "verdict": verdict.value,
        "confirmed": confirmed,
        "median_ms": median_ms,
        "baseline_median_ms": old.median_ms,
    }
    return values, gate


def _medians(measured: LatencyComparison) -> tuple[PairedRuns, PairedRuns]:
    base, new = (
        np.array([float(np.median(samples)) for samples in arm.rounds_ms]).reshape(-1, 2)
        for arm in (measured.base, measured.new)
    )
    return base, new

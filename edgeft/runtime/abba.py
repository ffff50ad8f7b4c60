"""Is the new model faster than the base, on this machine? ABBA rounds of fresh processes until the answer is clear.

Rounds run in the order base, new, new, base. After 9, 15, 25 and 40 rounds the interval of the ratio is held against
the limit; the first clear answer ends it. A FAIL must come out of a second, independent set of rounds too, else the
verdict is INCONCLUSIVE. The statistics are in `edgeft.verify.latency`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import cast

import numpy as np

from edgeft.core.errors import UsageError
from edgeft.core.events import EventSink, Message, Progress, ignore
from edgeft.core.record import Gate, Verdict
from edgeft.core.stage import Json
from edgeft.runtime.launch import launch
from edgeft.runtime.preprocess import InputContract
from edgeft.runtime.worker import Request, Timing
from edgeft.verify.latency import (
    FAIL_BOUNDARY,
    LOOKS,
    MIN_ROUNDS,
    PairedRuns,
    Quantile,
    look_tail,
    noise_floor,
    quantile,
    ratio,
)
from edgeft.verify.verdicts import below

_LATENCY_EXIT = 6
_END_TO_END_RUNS = 3
_END_TO_END_SAMPLES = 20
_DIGITS = 4

Launch = Callable[[Request], Timing]


@dataclass(frozen=True, slots=True)
class ArmLatency:
    """One model's timings.

    Args:
        median_ms: of all samples.
        p50: with its interval; null where there are too few samples for it. Likewise the others.
        load_ms: median over processes of opening the model.
        first_ms: median over processes of the first inference.
        peak_rss_bytes: largest over processes.
        base_rss_bytes: largest over processes before the model was opened (interpreter and libraries).
        samples: how many.
        rounds_ms: every sample of every process, in the order they ran.
        end_to_end_p50: the same from raw image files (read, decode, resize, infer, decide); null where not measured.
        end_to_end_ms: its samples.
    """

    median_ms: float
    p50: Quantile | None
    p90: Quantile | None
    p99: Quantile | None
    load_ms: float
    first_ms: float
    peak_rss_bytes: int
    base_rss_bytes: int
    samples: int
    rounds_ms: list[list[float]]
    end_to_end_p50: Quantile | None
    end_to_end_ms: list[list[float]]


@dataclass(frozen=True, slots=True)
class LatencyComparison:
    """New against base; `ratio` is new / base, below 1 means faster.

    Args:
        base: timings of the base model.
        new: timings of the new model.
        ratio: geometric mean over rounds.
        interval: its interval.
        noise_floor: relative change that these rounds could just tell from none (A/A control).
        rounds: ABBA rounds run, of four processes each.
        max_ratio: the limit that `ratio` was held against.
        verdict: of the whole interval against the limit.
        confirmed: of a FAIL: whether a second set of rounds failed too; null where none was needed.
        threads: intra-op threads.
        spinning: whether idle threads spun.
        inputs: what was fed.
    """

    base: ArmLatency
    new: ArmLatency
    ratio: float
    interval: tuple[float, float]
    noise_floor: float
    rounds: int
    max_ratio: float
    verdict: Verdict
    confirmed: bool | None
    threads: int
    spinning: bool
    inputs: str

    def to_json(self) -> dict[str, Json]:
        """Return JSON values; `interval` as a list."""
        return cast("dict[str, Json]", {**asdict(self), "interval": list(self.interval), "verdict": self.verdict.value})

    def gate(self, name: str = "latency vs_fp32") -> Gate:
        """Return the comparison as a gate; `name` says what the base is."""
        low, high = self.interval
        detail = (
            f"{self.new.median_ms:.2f} ms against {self.base.median_ms:.2f} ms, {self.ratio:.3f} times as long "
            f"({low:.3f} to {high:.3f} over {self.rounds} ABBA rounds, noise floor {self.noise_floor:.1%}), "
            f"{self.threads} thread(s), batch 1"
        )
        if self.confirmed is False:
            detail += "; a first set of rounds missed the limit, a second did not"
        elif self.verdict is Verdict.INCONCLUSIVE:
            detail += (
                "; too noisy to tell: close other programs, or measure more rounds (in a recipe: verify.latency.rounds)"
            )
        return Gate(
            name, self.verdict, self.ratio, self.interval, self.max_ratio, "ratio", self.rounds, detail, _LATENCY_EXIT
        )


@dataclass(slots=True)
class _Arms:
    """Timings so far, by arm, in the order they ran."""

    base: list[Timing]
    new: list[Timing]

    def medians(self, first_round: int = 0) -> tuple[PairedRuns, PairedRuns]:
        base, new = (
            np.array([median(run.samples_ms) for run in arm]).reshape(-1, 2)[first_round:]
            for arm in (self.base, self.new)
        )
        return base, new


def compare(  # noqa: PLR0913 - one option per fact that a latency claim must state
    base: Path,
    new: Path,
    *,
    threads: int = 1,
    max_ratio: float = 1.0,
    rounds: Sequence[int] = LOOKS,
    samples_per_round: int = 30,
    warmup: int = 3,
    max_seconds_per_run: float = 3.0,
    spinning: bool = False,
    inputs: Path | None = None,
    images: Sequence[Path] = (),
    contract: InputContract | None = None,
    exporter: str | None = None,
    emit: EventSink = ignore,
    run: Launch = launch,
) -> LatencyComparison:
    """Time two models against each other.

    Args:
        base: the reference, e.g. the fp32 graph.
        new: the model under test.
        threads: intra-op threads.
        max_ratio: the new model passes where all of the ratio's interval is below it; 1.0 means "faster".
        rounds: numbers of rounds after which a verdict is sought, ascending.
        samples_per_round: timed inferences per process (two processes per arm and round).
        warmup: untimed inferences after the first.
        max_seconds_per_run: caps the samples of slow models; at least five are taken.
        spinning: whether idle threads spin.
        inputs: .npy or .npz of real pixels; None feeds seeded noise and says so.
        images: raw image files for the end-to-end timing; empty leaves it out.
        contract: the input contract, needed with `images`.
        exporter: "module:Class" of the exporter whose runtime runs both; None: onnxruntime.
        emit: where progress goes.
        run: how one process is run; tests pass a simulation.

    Raises:
        UsageError: `rounds` is not ascending or too small, or `images` are given with an `exporter`.
        DeviceError: a process failed.
    """
    if exporter is not None and images:
        raise UsageError("raw images are timed end to end in onnxruntime alone, not through an exporter")
    fed = str(inputs) if inputs else None
    one, other = (
        Request(str(model), threads, spinning, samples_per_round, warmup, max_seconds_per_run, fed, exporter=exporter)
        for model in (base, new)
    )
    ends = None
    if images and contract is not None:
        samples, raw = min(samples_per_round, _END_TO_END_SAMPLES), tuple(map(str, images))
        of_one, of_other = (
            replace(request, samples=samples, images=raw, contract=contract.to_json()) for request in (one, other)
        )
        ends = (of_one, of_other)
    return compare_requests(one, other, end_to_end=ends, max_ratio=max_ratio, rounds=rounds, emit=emit, run=run)


def compare_requests(
    base: Request,
    new: Request,
    *,
    end_to_end: tuple[Request, Request] | None = None,
    max_ratio: float = 1.0,
    rounds: Sequence[int] = LOOKS,
    emit: EventSink = ignore,
    run: Launch = launch,
) -> LatencyComparison:
    """Time two requests against each other; see `compare`.

    Args:
        base: the reference.
        new: under test.
        end_to_end: both from raw image files; None leaves it out.
        max_ratio: the new one passes where all of the ratio's interval is below it.
        rounds: numbers of rounds after which a verdict is sought, ascending.
        emit: where progress goes.
        run: how one process is run.

    Raises:
        UsageError: `rounds` is not ascending or too small.
        DeviceError: a process failed.
    """
    looks = tuple(rounds)
    if not looks or list(looks) != sorted(set(looks)) or looks[0] < MIN_ROUNDS:
        raise UsageError(f"latency rounds {list(looks)}: expected ascending numbers of at least {MIN_ROUNDS}")
    requests = (base, new)
    arms, confirmed = _Arms([], []), None
    verdict = _seek(arms, looks, max_ratio, lambda total: _round(arms, requests, run, emit, total), 0)
    if verdict is Verdict.FAIL:
        emit(Message("latency: the limit was missed; measuring a second time to be sure", warning=True))
        start = len(arms.base) // 2
        again = _seek(arms, looks, max_ratio, lambda total: _round(arms, requests, run, emit, start + total), start)
        confirmed = again is Verdict.FAIL
        verdict = Verdict.FAIL if confirmed else Verdict.INCONCLUSIVE
    whole = ratio(*arms.medians(), look_tail(len(arms.base) // 2, looks[-1]))
    ends = _end_to_end(end_to_end, run)
    return LatencyComparison(
        base=_summary(arms.base, ends[0]),
        new=_summary(arms.new, ends[1]),
        ratio=whole.value,
        interval=(whole.low, whole.high),
        noise_floor=noise_floor(arms.medians()[0]),
        rounds=whole.rounds,
        max_ratio=max_ratio,
        verdict=verdict,
        confirmed=confirmed,
        threads=new.threads,
        spinning=new.spinning,
        inputs=Path(new.inputs).name if new.inputs else "seeded noise",
    )


def _seek(arms: _Arms, looks: tuple[int, ...], limit: float, one_round: Callable[[int], None], start: int) -> Verdict:
    """Add rounds until the interval over those from `start` on is clear of the limit."""
    for look in looks:
        while len(arms.base) // 2 - start < look:
            one_round(look)
        medians = arms.medians(start)
        low = ratio(*medians, look_tail(look, looks[-1], FAIL_BOUNDARY)).low
        verdict = below(low, ratio(*medians, look_tail(look, looks[-1])).high, limit)
        if verdict is not Verdict.INCONCLUSIVE:
            return verdict
    return Verdict.INCONCLUSIVE


def _round(arms: _Arms, requests: Sequence[Request], run: Launch, emit: EventSink, total: int) -> None:
    base, new = requests
    arms.base.append(run(base))
    arms.new.extend([run(new), run(new)])
    arms.base.append(run(base))
    done = len(arms.base) // 2
    here, there = (median(arm[-1].samples_ms) for arm in (arms.base, arms.new))
    emit(Progress("latency", done, max(done, total), f"{there:.2f} ms against {here:.2f} ms"))


def _end_to_end(requests: tuple[Request, Request] | None, run: Launch) -> tuple[list[Timing], list[Timing]]:
    ends: tuple[list[Timing], list[Timing]] = ([], [])
    for _ in range(_END_TO_END_RUNS if requests else 0):
        for end, request in zip(ends, requests or (), strict=True):
            end.append(run(request))
    return ends


def _summary(runs: Sequence[Timing], end_to_end: Sequence[Timing]) -> ArmLatency:
    samples = [sample for one in runs for sample in one.samples_ms]
    ends = [sample for one in end_to_end for sample in one.samples_ms]
    return ArmLatency(
        median_ms=median(samples),
        p50=quantile(samples, 0.5),
        p90=quantile(samples, 0.9),
        p99=quantile(samples, 0.99),
        load_ms=median(one.load_ms for one in runs),
        first_ms=median(one.first_ms for one in runs),
        peak_rss_bytes=max(one.peak_rss_bytes for one in runs),
        base_rss_bytes=max(one.base_rss_bytes for one in runs),
        samples=len(samples),
        rounds_ms=[[round(sample, _DIGITS) for sample in one.samples_ms] for one in runs],
        end_to_end_p50=quantile(ends, 0.5) if ends else None,
        end_to_end_ms=[[round(sample, _DIGITS) for sample in one.samples_ms] for one in end_to_end],
    )

"""What `bench` makes of simulated processes; no clock is read and no process is started."""

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeft.core.errors import UsageError
from edgeft.core.events import Event, Progress
from edgeft.runtime import bench as module
from edgeft.runtime.bench import Bench, bench, instructions
from edgeft.runtime.worker import Request, Timing

REQUEST = Request("model.onnx", 1, spinning=False, samples=4, warmup=1, max_seconds=3.0)


def timing(samples_ms: Sequence[float], **fields: Any) -> Timing:  # noqa: ANN401 - fields of a Timing
    known = {"load_ms": 50.0, "first_ms": 20.0, "peak_rss_bytes": 90, "base_rss_bytes": 30, "loop_s": 1.0, "cpu_s": 0.5}
    return Timing(samples_ms=list(samples_ms), **{**known, **fields})


class Processes:
    """Answers with `timings` in turn and keeps what was asked."""

    def __init__(self, *timings: Timing) -> None:
        self.requests: list[Request] = []
        self._timings = timings

    def __call__(self, request: Request) -> Timing:
        self.requests.append(request)
        return self._timings[(len(self.requests) - 1) % len(self._timings)]


def run(*timings: Timing, **options: Any) -> Bench:  # noqa: ANN401 - options of bench
    return bench(REQUEST, run=Processes(*timings), **{"processes": len(timings), "count": lambda _: None, **options})


def test_single_sums_up_every_process() -> None:
    found = run(
        timing([1.0, 3.0, 2.0], load_ms=40.0, first_ms=9.0, peak_rss_bytes=80, loop_s=0.5, cpu_s=0.5),
        timing([10.0, 14.0], load_ms=60.0, first_ms=7.0, peak_rss_bytes=95, base_rss_bytes=35, loop_s=1.5, cpu_s=2.5),
        timing([5.0, 5.0], load_ms=41.0, first_ms=8.0, loop_s=0.5, cpu_s=0.75),
    )
    assert found.model.samples_ms == [[1.0, 3.0, 2.0], [10.0, 14.0], [5.0, 5.0]]
    assert (found.model.samples, found.model.median_ms) == (7, 5.0)
    assert found.model.jitter_ms == (2 + 1 + 4 + 0) / 4  # within a process; the step from one to the next is none
    assert found.throughput_per_s == 7 / 2.5
    assert found.cpu_share == 3.75 / 2.5
    assert (found.load_ms, found.first_ms) == (41.0, 8.0)
    assert (found.peak_rss_bytes, found.base_rss_bytes) == (95, 35)
    assert (found.period_ms, found.misses, found.slowdown, found.grown_bytes) == (None, None, None, None)


def test_a_quantile_needs_its_samples() -> None:
    few = run(timing([1.0] * 298)).model
    assert few.p90 is not None
    assert few.p99 is None
    assert run(timing([1.0] * 299)).model.p99 is not None
    assert run(timing([1.0] * 4)).model.p50 is None


def test_one_sample_a_process_has_no_jitter() -> None:
    assert run(timing([1.0]), timing([9.0])).model.jitter_ms == 0.0


def test_raw_files_are_timed_in_three_processes_at_most() -> None:
    raw = replace(REQUEST, images=("a.png",))
    for processes, expected in ((5, 3), (2, 2)):
        asked = Processes(timing([4.0, 6.0]))
        found = bench(REQUEST, raw, processes=processes, run=asked, count=lambda _: None)
        assert [request.images for request in asked.requests] == [()] * processes + [("a.png",)] * expected
        assert found.end_to_end is not None
        assert found.end_to_end.samples == 2 * expected
    assert run(timing([4.0])).end_to_end is None


def test_paced_counts_what_took_longer_than_the_period() -> None:
    raw, asked = replace(REQUEST, images=("a.png",)), Processes(timing([10.0, 33.0, 33.5, 80.0]))
    found = bench(REQUEST, raw, mode="paced", period_ms=33.0, processes=2, run=asked, count=_never)
    assert {request.period_ms for request in asked.requests} == {33.0}
    assert (found.period_ms, found.misses) == (33.0, 4)
    assert found.throughput_per_s is None
    assert found.instructions is None


def test_soak_is_one_process_as_long_as_was_asked() -> None:
    samples = [1.0, 3.0, *[50.0] * 16, 4.0, 6.0]
    asked = Processes(timing(samples, grown_bytes=4096))
    found = bench(REQUEST, mode="soak", processes=7, seconds=90.0, run=asked, count=_never)
    (request,) = asked.requests
    assert (request.max_seconds, request.period_ms) == (90.0, 0.0)
    assert request.samples > 90 * 10**6  # time ends it, not a number of samples
    assert found.processes == 1
    assert found.slowdown == 5.0 / 2.0
    assert found.grown_bytes == 4096


def test_soak_of_few_samples_has_no_slowdown() -> None:
    assert run(timing([1.0] * 19), mode="soak", count=_never).slowdown is None
    assert run(timing([1.0] * 20), mode="soak", count=_never).slowdown == 1.0


def test_energy_is_for_one_image() -> None:
    assert run(timing([1.0, 1.0], energy_j=3.0), timing([1.0, 1.0], energy_j=5.0)).energy_j == 2.0
    assert run(timing([1.0, 1.0], energy_j=0.0)).energy_j == 0.0


def test_one_process_without_energy_leaves_none() -> None:
    assert run(timing([1.0], energy_j=3.0), timing([1.0], energy_j=None)).energy_j is None


def test_a_process_that_took_no_time_divides_by_nothing() -> None:
    found = run(timing([1.0], loop_s=0.0, cpu_s=0.0))
    assert (found.throughput_per_s, found.cpu_share) == (None, 0.0)


def test_progress_is_told_for_each_process() -> None:
    events: list[Event] = []
    run(timing([1.0]), timing([2.5]), emit=events.append)
    assert events == [Progress("bench", 1, 2, "1.00 ms"), Progress("bench", 2, 2, "2.50 ms")]


def test_the_record_is_json_and_names_what_was_fed() -> None:
    found = run(timing([1.0, 2.0]))
    assert found.inputs == "seeded noise"
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == found.to_json()
    fed = bench(replace(REQUEST, inputs="somewhere/x.npy"), run=Processes(timing([1.0])), count=lambda _: 12.0)
    assert (fed.inputs, fed.instructions) == ("x.npy", 12.0)


@pytest.mark.parametrize(
    ("mode", "period_ms"),
    [
        ("paced", None),
        ("paced", 0.0),
        ("paced", -1.0),
        ("paced", float("nan")),
        ("paced", float("inf")),
        ("single", 33.0),
        ("single", 0.0),
        ("soak", 33.0),
    ],
)
def test_a_period_belongs_to_paced_alone(mode: Any, period_ms: float | None) -> None:  # noqa: ANN401 - a Literal
    words = "--mode paced needs the time" if mode == "paced" else f"is for --mode paced, not {mode}"
    with pytest.raises(UsageError, match=words) as caught:
        run(timing([1.0]), mode=mode, period_ms=period_ms)
    assert caught.value.hint is not None
    assert "--mode paced" in caught.value.hint


def test_no_process_measures_nothing() -> None:
    with pytest.raises(UsageError, match="0 processes"):
        run(timing([1.0]), processes=0)


def test_instructions_are_what_two_counts_differ_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: name)
    monkeypatch.setattr(module, "_count", lambda _, request: 1e9 + 7e6 * request.samples)
    assert instructions(REQUEST) == 7e6


@pytest.mark.parametrize("uncountable", [(5,), (45,), (5, 45)])
def test_one_missing_count_leaves_no_instructions(monkeypatch: pytest.MonkeyPatch, uncountable: tuple[int]) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: name)
    monkeypatch.setattr(module, "_count", lambda _, request: None if request.samples in uncountable else 1e9)
    assert instructions(REQUEST) is None


def test_without_perf_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    monkeypatch.setattr(module, "_count", _never)
    assert instructions(REQUEST) is None


@pytest.mark.parametrize(
    ("written", "returncode", "expected"),
    [
        ("# started on a day\n\n1234567,,instructions:u,100,100.00,,\n", 0, 1234567.0),
        ("1234567,,instructions:u,100,100.00,,\n", 1, None),
        ("<not supported>,,instructions:u,0,100.00,,\n", 0, None),
        ("", 0, None),
        (None, 0, None),
    ],
)
def test_a_count_is_read_from_perfs_table(
    monkeypatch: pytest.MonkeyPatch, written: str | None, returncode: int, expected: float | None
) -> None:
    monkeypatch.setattr(module.subprocess, "run", _perf(written, returncode))
    assert module._count("perf", REQUEST) == expected


def _perf(written: str | None, returncode: int) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    def answer(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        del options
        assert command[:4] == ["perf", "stat", "-x,", "-e"]
        assert json.loads(command[-1])["model"] == "model.onnx"
        if written is not None:
            Path(command[command.index("-o") + 1]).write_text(written)
        return subprocess.CompletedProcess(command, returncode)

    return answer


def _never(*arguments: object) -> float:
    raise AssertionError(arguments)

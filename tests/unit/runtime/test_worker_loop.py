"""The timed loop on a simulated clock, and the energy counters of a simulated machine: nothing sleeps."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgeft.runtime import worker
from edgeft.runtime.worker import Request, Timing, energy_uj

MS = 10**6
REQUEST = Request("model.onnx", 1, spinning=False, samples=6, warmup=0, max_seconds=60.0)


class Clock:
    """Stands for the `time` module: it goes on only when something is done or slept."""

    def __init__(self) -> None:
        self.now_ns, self.cpu_s = 0, 0.0
        self.slept_s: list[float] = []

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def monotonic(self) -> float:
        return self.now_ns / 1e9

    def process_time(self) -> float:
        return self.cpu_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_ns += round(seconds * 1e9)

    def step(self, durations_ms: Iterator[int]) -> Callable[[], object]:
        def work() -> None:
            duration = next(durations_ms)
            self.now_ns += duration * MS
            self.cpu_s += 2 * duration / 1000  # two threads

        return work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    simulated = Clock()
    monkeypatch.setattr(worker, "time", simulated)
    monkeypatch.setattr(worker, "energy_uj", lambda: None)
    return simulated


def loop(clock: Clock, durations_ms: list[int], request: Request) -> Timing:
    return worker._loop([clock.step(iter(durations_ms))], request, 0.0, 0.0, 0)


def test_paced_a_late_image_counts_its_wait(clock: Clock) -> None:
    """One image of 30 ms makes the next three late: they came at 20, 30 and 40 ms and were begun at 40, 42 and 44."""
    found = loop(clock, [2, 30, 2, 2, 2, 2], replace(REQUEST, period_ms=10.0))
    assert found.samples_ms == [2.0, 30.0, 22.0, 14.0, 6.0, 2.0]
    assert clock.slept_s == pytest.approx([0, 0.008, 0, 0, 0, 0.004])
    assert found.loop_s == pytest.approx(0.052)  # 44 + 2 ms, then the image that came at 50


def test_back_to_back_nothing_waits(clock: Clock) -> None:
    found = loop(clock, [2, 30, 2, 2, 2, 2], REQUEST)
    assert found.samples_ms == [2.0, 30.0, 2.0, 2.0, 2.0, 2.0]
    assert clock.slept_s == []
    assert (found.loop_s, found.cpu_s) == pytest.approx((0.040, 0.080))


@pytest.mark.parametrize("period_ms", [0.0, 10.0])
def test_the_deadline_ends_a_slow_model_after_five_samples(clock: Clock, period_ms: float) -> None:
    slow = replace(REQUEST, max_seconds=1.0, period_ms=period_ms)
    assert len(loop(clock, [500] * 6, slow).samples_ms) == 5
    assert len(loop(clock, [150] * 8, replace(slow, samples=8)).samples_ms) == 7


def test_steps_take_turns(clock: Clock) -> None:
    one, two = clock.step(iter([1, 1, 1])), clock.step(iter([5, 5, 5]))
    assert worker._loop([one, two], REQUEST, 0.0, 0.0, 0).samples_ms == [1.0, 5.0] * 3


def test_memory_counts_what_the_loop_added(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    for sizes, grown in (([1000, 5000], 4000), ([5000, 1000], 0)):
        resident = iter(sizes)
        monkeypatch.setattr(worker, "_status_bytes", lambda field, left=resident: next(left) if "RSS" in field else 1)
        assert loop(clock, [1] * 6, REQUEST).grown_bytes == grown


@pytest.mark.parametrize(
    ("counters", "joules"),
    [
        ((1_000_000, 3_500_000), 2.5),
        ((7, 7), 0.0),
        ((3_500_000, 1_000_000), None),  # the counter wrapped around
        ((None, 5), None),
        ((5, None), None),
    ],
)
def test_energy_is_what_the_counter_gained(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, counters: tuple[int | None, int | None], joules: float | None
) -> None:
    read = iter(counters)
    monkeypatch.setattr(worker, "energy_uj", lambda: next(read))
    assert loop(clock, [1] * 6, REQUEST).energy_j == joules


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(worker, "Path", lambda path: tmp_path / path.lstrip("/"))
    return tmp_path / "sys" / "class" / "powercap"


def counter(powercap: Path, name: str, text: str) -> None:
    (powercap / name).mkdir(parents=True)
    (powercap / name / "energy_uj").write_text(text)


def test_energy_sums_packages_and_leaves_their_parts_out(powercap: Path) -> None:
    for name, text in (("intel-rapl:0", "40\n"), ("intel-rapl:1", "2\n"), ("intel-rapl:0:0", "1000\n")):
        counter(powercap, name, text)
    counter(powercap, "intel-rapl-mmio:0", "5000\n")
    assert energy_uj() == 42


def test_a_machine_without_counters_has_no_energy(powercap: Path) -> None:
    assert energy_uj() is None
    powercap.mkdir(parents=True)
    assert energy_uj() is None


def test_a_counter_that_cannot_be_read_leaves_no_energy(powercap: Path) -> None:
    counter(powercap, "intel-rapl:0", "40\n")
    counter(powercap, "intel-rapl:1", "a word\n")
    assert energy_uj() is None
    (powercap / "intel-rapl:1" / "energy_uj").unlink()  # as for a user who may not read it: an OSError
    assert energy_uj() is None

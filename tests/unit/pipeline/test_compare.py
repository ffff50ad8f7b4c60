"""`edgeft compare` on simulated processes: verdicts, exit codes, baselines, and what is refused."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeft.core.errors import DataError, DeviceError, UsageError
from edgeft.core.events import Event, Message
from edgeft.core.record import Verdict
from edgeft.pipeline import baseline as stored
from edgeft.pipeline.bench import Options as BenchOptions
from edgeft.pipeline.bench import measure
from edgeft.pipeline.compare import Options, compare
from edgeft.runtime.manifest import manifest_bytes, seal

SWAPPED = (1, 0, 2)
"""Outputs of a model that takes red for green and green for red: 48 of 72 images wrong."""


@pytest.fixture(autouse=True)
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instructions are counted in real processes."""
    monkeypatch.setattr("edgeft.runtime.bench.instructions", lambda _: None)


@pytest.fixture
def pair(make_bundle: Callable[..., Path]) -> tuple[Path, Path]:
    """Two bundles of one model."""
    return make_bundle("before"), make_bundle("after")


@pytest.fixture
def arrays(tiny_data: Path, tmp_path: Path) -> Path:
    """The 72 images and labels as arrays."""
    rows = [json.loads(line) for line in (tiny_data / "rows.jsonl").read_text().splitlines()]
    labels = np.array([row["label"] for row in rows])
    np.savez(tmp_path / "data.npz", pixels=np.load(tiny_data / "pixels.npy"), labels=labels)
    return tmp_path / "data.npz"


def gates(record: dict[str, Any]) -> dict[str, str]:
    return {gate["name"]: gate["verdict"] for gate in record["gates"]}


def test_equal_bundles_pass(pair: tuple[Path, Path], tiny_images: Path, make_machine: Callable[..., Any]) -> None:
    record = compare(*pair, Options(evaluation=tiny_images, max_drop_pp=5.0), run=make_machine())
    assert gates(record) == {"accuracy": "PASS", "latency": "PASS"}
    assert (record["kind"], record["status"], record["exit_code"]) == ("compare", "passed", 0)
    assert (record["name"], record["notes"]) == ("after against before", [])
    assert (record["base"]["path"], record["new"]["path"]) == tuple(map(str, pair))
    accuracy = record["accuracy"]
    assert (accuracy["base"], accuracy["new"], accuracy["changed"], accuracy["n"]) == (1.0, 1.0, 0, 72)
    assert record["latency"]["rounds"] == 9
    assert json.loads(json.dumps(record, allow_nan=False))["gates"][0]["verdict"] == "PASS"


def test_a_slower_bundle_fails_with_6(pair: tuple[Path, Path], make_machine: Callable[..., Any]) -> None:
    record = compare(*pair, Options(max_slowdown=0.05), run=make_machine({"after": 13.0}))
    assert (record["status"], record["exit_code"]) == ("failed", 6)
    assert record["latency"]["confirmed"] is True
    assert record["latency"]["max_ratio"] == 1.05
    assert record["latency"]["ratio"] == pytest.approx(1.3, rel=0.01)
    assert record["notes"] == ["accuracy was not compared: no --eval data was given"]


def test_how_much_slower_is_a_choice(pair: tuple[Path, Path], make_machine: Callable[..., Any]) -> None:
    assert compare(*pair, Options(max_slowdown=0.5), run=make_machine({"after": 13.0}))["exit_code"] == 0


def test_a_worse_bundle_fails_with_5_before_6(
    pair: tuple[Path, Path],
    tiny_images: Path,
    make_bundle: Callable[..., Path],
    make_model: Callable[..., Path],
    make_machine: Callable[..., Any],
) -> None:
    worse = make_bundle("worse", make_model("worse.onnx", order=SWAPPED))
    for slow, verdict in ((10.0, "PASS"), (13.0, "FAIL")):
        record = compare(pair[0], worse, Options(evaluation=tiny_images), run=make_machine({"worse": slow}))
        assert gates(record) == {"accuracy": "FAIL", "latency": verdict}
        assert (record["status"], record["exit_code"]) == ("failed", 5)
        accuracy = record["accuracy"]
        assert (accuracy["base"], accuracy["new"]) == (1.0, pytest.approx(24 / 72))
        assert (accuracy["drop_pp"], accuracy["changed"]) == (pytest.approx(100 * 48 / 72), 48)


def test_raw_files_are_timed_with_both_models(pair: tuple[Path, Path], make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    record = compare(*pair, Options(), run=machine)
    raw = [request.model for request in machine.requests if request.images]
    assert raw == [str(path / "model.onnx") for path in pair] * 3
    assert len(record["latency"]["base"]["end_to_end_ms"]) == 3


def test_what_cannot_be_decided_says_what_would_decide_it(
    pair: tuple[Path, Path], tiny_images: Path, make_machine: Callable[..., Any]
) -> None:
    """72 images without a changed decision leave 3.6 pp possible; (1.6449 + 1.2816)^2 / 72 / 0.005^2 = 4758."""
    options = Options(evaluation=tiny_images, max_drop_pp=0.5)
    record = compare(*pair, options, run=make_machine())
    assert gates(record) == {"accuracy": "INCONCLUSIVE", "latency": "PASS"}
    assert (record["status"], record["exit_code"]) == ("inconclusive", 0)
    assert "0 of 72 decisions changed; 4758 labelled images would certify 0.5 pp" in record["gates"][0]["detail"]
    assert compare(*pair, replace(options, strict=True), run=make_machine())["exit_code"] == 7


def test_bare_files_are_judged_on_arrays(
    tiny_graph: Path, arrays: Path, make_model: Callable[..., Path], make_machine: Callable[..., Any]
) -> None:
    options = Options(evaluation=arrays, max_drop_pp=5.0)
    assert compare(tiny_graph, tiny_graph, options, run=make_machine())["exit_code"] == 0
    worse = compare(tiny_graph, make_model("worse.onnx", order=SWAPPED), options, run=make_machine())
    assert (worse["exit_code"], worse["accuracy"]["n"]) == (5, 72)


def test_without_latency_no_process_is_run(tiny_graph: Path, arrays: Path, make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    record = compare(tiny_graph, tiny_graph, Options(evaluation=arrays, latency=False, max_drop_pp=5.0), run=machine)
    assert machine.requests == []
    assert gates(record) == {"accuracy": "PASS"}
    assert "latency" not in record
    assert record["notes"] == ["latency was left out"]


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1", "auroc", "average_precision"])
def test_other_metrics_are_judged(
    tiny_graph: Path, arrays: Path, make_model: Callable[..., Path], make_machine: Callable[..., Any], metric: str
) -> None:
    options = Options(evaluation=arrays, metric=metric, latency=False, max_drop_pp=20.0)
    good = compare(tiny_graph, tiny_graph, options, run=make_machine())
    assert (good["accuracy"]["metric"], good["accuracy"]["base"], good["exit_code"]) == (metric, 1.0, 0)
    assert compare(tiny_graph, make_model("w.onnx", order=SWAPPED), options, run=make_machine())["exit_code"] == 5


@pytest.fixture
def kept(tmp_path: Path, tiny_bundle: Path, tiny_images: Path, make_machine: Callable[..., Any]) -> Path:
    """A baseline of the tiny bundle, which took 10 ms where the reference took 5."""
    path = tmp_path / "kept.json"
    measure(tiny_bundle, BenchOptions(processes=1, evaluation=tiny_images, baseline=path), run=make_machine())
    return path


def test_a_baseline_stands_for_its_bundle(
    kept: Path, tiny_bundle: Path, tiny_images: Path, make_machine: Callable[..., Any]
) -> None:
    record = compare(kept, tiny_bundle, Options(evaluation=tiny_images, max_drop_pp=5.0), run=make_machine())
    assert gates(record) == {"accuracy": "PASS", "latency": "PASS"}
    assert record["name"] == "tiny against the baseline of tiny"
    assert (record["base"]["baseline"], record["base"]["sha256"]) == (str(kept), record["new"]["sha256"])
    latency = record["latency"]
    assert (latency["rounds"], latency["confirmed"]) == (9, None)
    assert latency["ratio"] == pytest.approx(1.0, abs=0.01)
    assert latency["interval"][0] < 1 < latency["interval"][1]
    assert latency["baseline_median_ms"] == pytest.approx(10.0, rel=0.02)


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_how_fast_the_machine_is_on_a_day_cancels(
    kept: Path, tiny_bundle: Path, make_machine: Callable[..., Any], speed: float
) -> None:
    record = compare(kept, tiny_bundle, Options(), run=make_machine(speed=speed))
    assert record["exit_code"] == 0
    assert record["latency"]["ratio"] == pytest.approx(1.0, abs=0.01)


def test_a_slower_model_fails_its_baseline_twice(
    kept: Path, tiny_bundle: Path, make_machine: Callable[..., Any]
) -> None:
    events: list[Event] = []
    machine = make_machine({"model.onnx": 13.0})
    record = compare(kept, tiny_bundle, Options(), emit=events.append, run=machine)
    assert (record["exit_code"], record["latency"]["confirmed"]) == (6, True)
    assert len(machine.requests) == 2 * 9 * 4
    assert any(isinstance(event, Message) and event.warning for event in events)


def test_a_fail_against_a_baseline_that_does_not_come_back_is_inconclusive(
    kept: Path, tiny_bundle: Path, make_machine: Callable[..., Any]
) -> None:
    machine = make_machine({"model.onnx": 13.0})

    def recovers(event: Event) -> None:
        if isinstance(event, Message):
            machine.levels["model.onnx"] = 10.0

    record = compare(kept, tiny_bundle, Options(strict=True), emit=recovers, run=machine)
    assert (record["latency"]["verdict"], record["latency"]["confirmed"]) == ("INCONCLUSIVE", False)
    assert record["exit_code"] == 7
    assert "a first set of rounds missed the limit, a second did not" in record["gates"][0]["detail"]


def test_a_baseline_too_close_to_tell_asks_for_the_bundle(
    kept: Path, tiny_bundle: Path, make_machine: Callable[..., Any]
) -> None:
    machine = make_machine({"model.onnx": 10.5})
    record = compare(kept, tiny_bundle, Options(rounds=(3, 6, 9)), run=machine)
    assert (record["status"], record["latency"]["rounds"]) == ("inconclusive", 9)
    assert len(machine.requests) == 9 * 4  # rounds add up over the looks
    assert "give the old bundle itself as BASE" in record["gates"][0]["detail"]


@pytest.mark.parametrize("rounds", [(), (2,), (9, 9), (9, 10), (15, 9)])
def test_impossible_rounds_are_refused_before_any_is_run(
    kept: Path, tiny_bundle: Path, make_machine: Callable[..., Any], rounds: tuple[int, ...]
) -> None:
    machine = make_machine({"model.onnx": 10.5})
    with pytest.raises(UsageError, match="latency rounds"):
        compare(kept, tiny_bundle, Options(rounds=rounds), run=machine)
    assert machine.requests == []


def test_a_worse_model_fails_the_baselines_scores(
    kept: Path,
    tiny_images: Path,
    make_bundle: Callable[..., Path],
    make_model: Callable[..., Path],
    make_machine: Callable[..., Any],
) -> None:
    worse = make_bundle("worse", make_model("worse.onnx", order=SWAPPED))
    record = compare(kept, worse, Options(evaluation=tiny_images, latency=False), run=make_machine())
    assert (record["exit_code"], record["accuracy"]["changed"]) == (5, 48)


def test_scores_of_other_data_are_never_paired(
    kept: Path, tiny_bundle: Path, arrays: Path, make_machine: Callable[..., Any]
) -> None:
    with np.load(arrays) as data:
        np.savez(arrays, pixels=data["pixels"], labels=data["labels"][::-1])
    with pytest.raises(UsageError, match=r"kept\.json: the baseline holds scores of other data") as caught:
        compare(kept, tiny_bundle, Options(evaluation=arrays, latency=False), run=make_machine())
    assert caught.value.hint == f"edgeft bench BASE --eval {arrays} --save-baseline {kept}"


def test_a_baseline_without_scores_judges_no_accuracy(
    kept: Path, tiny_bundle: Path, tiny_images: Path, make_machine: Callable[..., Any]
) -> None:
    stored.save(kept, replace(stored.load(kept), scores=None, evaluation=None))
    with pytest.raises(UsageError, match=r"kept\.json: holds no scores"):
        compare(kept, tiny_bundle, Options(evaluation=tiny_images, latency=False), run=make_machine())
    assert compare(kept, tiny_bundle, Options(), run=make_machine())["exit_code"] == 0


def test_a_baseline_from_elsewhere_is_not_timed_against(
    kept: Path, tiny_bundle: Path, make_machine: Callable[..., Any]
) -> None:
    old, machine = stored.load(kept), make_machine()
    stored.save(kept, replace(old, key={**old.key, "device": {**old.key["device"], "cpu": "another"}}))
    with pytest.raises(UsageError, match=r"device\.cpu: another then"):
        compare(kept, tiny_bundle, Options(), run=machine)
    with pytest.raises(UsageError, match="threads: 1 then, 2 now"):
        compare(kept, tiny_bundle, Options(threads=2), run=machine)
    assert machine.requests == []


def test_a_baseline_of_another_task_is_refused(
    kept: Path, make_bundle: Callable[..., Path], make_machine: Callable[..., Any]
) -> None:
    other = make_bundle("other", head={"classes": ["cat", "dog", "hen"]})
    with pytest.raises(DataError, match=r"classes \['red', 'green', 'blue'\] against \['cat', 'dog', 'hen'\]"):
        compare(kept, other, Options(), run=make_machine())


def test_models_of_other_tasks_are_refused(
    tiny_graph: Path, make_model: Callable[..., Path], make_machine: Callable[..., Any]
) -> None:
    machine = make_machine()
    with pytest.raises(DataError, match="cannot be compared: input"):
        compare(tiny_graph, make_model("large.onnx", side=24), Options(), run=machine)
    assert machine.requests == []


def test_nothing_to_compare_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to compare") as caught:
        compare(tmp_path / "gone", tmp_path / "gone", Options(latency=False))
    assert caught.value.hint == "give --eval DATA"


@pytest.mark.parametrize("metric", ["auroc", "average_precision", "balanced_accuracy", "macro_f1"])
def test_one_class_alone_names_the_class_that_is_absent(
    pair: tuple[Path, Path], tmp_path: Path, tiny_images: Path, make_machine: Callable[..., Any], metric: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "red").symlink_to(tiny_images / "red")
    options = Options(evaluation=tmp_path / "data", metric=metric)
    with pytest.raises(DataError, match=f"no image of the class 'green': {metric} needs every one"):
        compare(*pair, options, run=make_machine())


def test_one_class_alone_still_has_an_accuracy(
    pair: tuple[Path, Path], tmp_path: Path, tiny_images: Path, make_machine: Callable[..., Any]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "red").symlink_to(tiny_images / "red")
    record = compare(*pair, Options(evaluation=tmp_path / "data", latency=False), run=make_machine())
    assert (record["accuracy"]["base"], record["accuracy"]["n"]) == (1.0, 24)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision"])
@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_refused(
    tiny_graph: Path, arrays: Path, make_machine: Callable[..., Any], metric: str, label: int
) -> None:
    with np.load(arrays) as data:
        pixels, labels = data["pixels"], data["labels"]
    labels[0] = label
    np.savez(arrays, pixels=pixels, labels=labels)
    with pytest.raises(DataError, match=r"expected 0\.\.2"):
        compare(tiny_graph, tiny_graph, Options(evaluation=arrays, metric=metric, latency=False), run=make_machine())


def test_models_of_another_number_of_classes_are_refused(
    tiny_graph: Path, make_model: Callable[..., Path], arrays: Path, make_machine: Callable[..., Any]
) -> None:
    two = make_model("two.onnx", order=(0, 1))
    with pytest.raises(DataError, match=r"scores of shape \(72, 3\), expected \(72, 2\)"):
        compare(tiny_graph, two, Options(evaluation=arrays, latency=False), run=make_machine())


@pytest.mark.parametrize("dies_at", [1, 20, 38])
def test_a_process_that_dies_ends_it(pair: tuple[Path, Path], make_machine: Callable[..., Any], dies_at: int) -> None:
    """At once, in a round, and while raw files are timed."""
    machine = make_machine()
    machine.dies_at = dies_at
    with pytest.raises(DeviceError, match="ended with -9"):
        compare(*pair, Options(), run=machine)


def test_a_ratio_is_held_against_the_limit_not_against_one(
    kept: Path, tiny_bundle: Path, make_machine: Callable[..., Any]
) -> None:
    record = compare(kept, tiny_bundle, Options(max_slowdown=0.3), run=make_machine({"model.onnx": 12.0}, noise=0.001))
    (gate,) = record["gates"]
    assert (gate["verdict"], gate["limit"], gate["unit"]) == (Verdict.PASS, 1.3, "ratio")
    assert math.log(gate["value"]) == pytest.approx(math.log(1.2), abs=0.01)


def with_threshold(bundle: Path, stop_at: float) -> Path:
    """Let `bundle` decide by a threshold, as a build with `decide.method: threshold` would."""
    values = json.loads((bundle / "manifest.json").read_text())
    rule = {"method": "threshold", "ok": "green", "stop_at": stop_at, "sure_at": stop_at}
    rule["model"] = values["files"]["model.onnx"]
    (bundle / "manifest.json").write_bytes(manifest_bytes(seal({**values, "decision": rule})))
    return bundle


def test_a_shifted_threshold_is_a_drop_though_the_scores_are_the_same(
    pair: tuple[Path, Path], tiny_images: Path, make_machine: Callable[..., Any]
) -> None:
    options = Options(evaluation=tiny_images, latency=False)
    with_threshold(pair[0], 0.5)
    with_threshold(pair[1], 0.97)  # hardly any part is bad enough
    record = compare(*pair, options, run=make_machine())
    assert (record["status"], record["accuracy"]["base"]) == ("failed", 1.0)
    assert record["accuracy"]["new"] == pytest.approx(24 / 72)
    assert [record[side]["decision"]["stop_at"] for side in ("base", "new")] == [0.5, 0.97]
    unmoved = compare(*pair, replace(options, metric="auroc", max_drop_pp=25.0), run=make_machine())
    assert (unmoved["status"], unmoved["accuracy"]["drop_pp"]) == ("passed", 0.0)


def test_a_baseline_keeps_how_its_model_decided(
    pair: tuple[Path, Path], tiny_images: Path, tmp_path: Path, make_machine: Callable[..., Any]
) -> None:
    with_threshold(pair[0], 0.97)
    kept = tmp_path / "kept.json"
    measure(pair[0], BenchOptions(evaluation=tiny_images, baseline=kept), run=make_machine())
    record = compare(kept, pair[1], Options(evaluation=tiny_images, latency=False), run=make_machine())
    assert record["accuracy"]["base"] == pytest.approx(24 / 72)
    assert record["accuracy"]["new"] == 1.0

"""The record that `edgeft bench` makes and the baseline it keeps, on simulated processes."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from edgeft.core.errors import DataError, DeviceError, UsageError
from edgeft.pipeline import baseline as stored
from edgeft.pipeline.bench import Options, measure, require_local


@pytest.fixture(autouse=True)
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instructions are counted in real processes."""
    monkeypatch.setattr("edgeft.runtime.bench.instructions", lambda _: None)


def test_a_bundle_is_measured_alone_and_from_raw_files(tiny_bundle: Path, make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    record = measure(tiny_bundle, Options(processes=4, samples=9, threads=2, spinning=True), run=machine)
    assert [bool(request.images) for request in machine.requests] == [False] * 4 + [True] * 3
    assert {(request.samples, request.threads, request.spinning) for request in machine.requests} == {(9, 2, True)}
    assert (record["kind"], record["status"], record["exit_code"]) == ("bench", "ok", 0)
    assert (record["subject"]["name"], record["subject"]["classes"]) == ("tiny", ["red", "green", "blue"])
    assert (record["bench"]["inputs"], record["bench"]["processes"]) == ("golden.npy", 4)
    assert record["bench"]["end_to_end"]["samples"] == 15
    assert record["baseline"] is None
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_bare_file_is_measured_on_noise(tiny_graph: Path, make_machine: Callable[..., Any]) -> None:
    record = measure(tiny_graph, Options(processes=1), run=make_machine())
    assert (record["bench"]["inputs"], record["bench"]["end_to_end"]) == ("seeded noise", None)


def test_modes_are_handed_on(tiny_graph: Path, make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    paced = measure(tiny_graph, Options(mode="paced", period_ms=8.0, processes=1), run=machine)
    assert (paced["bench"]["period_ms"], paced["bench"]["misses"]) == (8.0, 5)  # it takes 10 ms
    soak = measure(tiny_graph, Options(mode="soak", seconds=7.0), run=machine)
    assert soak["bench"]["grown_bytes"] == 0
    assert [(request.period_ms, request.max_seconds) for request in machine.requests] == [(8.0, 60.0), (0.0, 7.0)]


def test_a_baseline_holds_rounds_against_the_reference(
    tiny_bundle: Path, tmp_path: Path, make_machine: Callable[..., Any]
) -> None:
    machine = make_machine({"model.onnx": 20.0}, noise=0.0)
    kept = tmp_path / "new" / "main.json"
    record = measure(tiny_bundle, Options(processes=1, samples=9, baseline=kept), run=machine)
    found = stored.load(kept)
    np.testing.assert_allclose(found.round_logs, [math.log(20 / 5)] * 15, rtol=1e-12)  # the reference takes 5 ms
    assert found.median_ms == 20.0
    assert (found.scores, found.evaluation) == (None, None)
    assert (found.subject, found.bench) == (record["subject"], record["bench"])
    assert found.key == stored.key(1, spinning=False, inputs="golden.npy")
    assert record["baseline"] == str(kept)
    rounds = [Path(request.model).name for request in machine.requests[2:]]  # after the model alone and from raw files
    assert rounds == ["reference.onnx", "model.onnx", "model.onnx", "reference.onnx"] * 15


def test_a_baseline_keeps_the_scores_of_its_data(
    tiny_bundle: Path, tiny_images: Path, tiny_data: Path, tmp_path: Path, make_machine: Callable[..., Any]
) -> None:
    options = Options(processes=1, evaluation=tiny_images, baseline=tmp_path / "a.json")
    measure(tiny_bundle, options, run=make_machine())
    found = stored.load(tmp_path / "a.json")
    session = ort.InferenceSession((tiny_bundle / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"pixels": np.load(tiny_data / "pixels.npy")})
    assert found.scores is not None
    # a batch of 72 may sum in another order than 72 batches of one
    np.testing.assert_allclose(np.sort(found.scores, axis=0), np.sort(expected, axis=0), rtol=0, atol=1e-6)


def test_the_digest_of_the_data_knows_pixels_and_labels(
    tiny_graph: Path, tmp_path: Path, make_machine: Callable[..., Any]
) -> None:
    pixels, labels = np.zeros((2, 16, 16, 3), np.uint8), np.array([0, 1])
    digests = []
    for data in ((pixels, labels), (pixels, labels), (pixels + 1, labels), (pixels, labels[::-1])):
        np.savez(tmp_path / "a.npz", pixels=data[0], labels=data[1])
        options = Options(processes=1, evaluation=tmp_path / "a.npz", baseline=tmp_path / "a.json")
        measure(tiny_graph, options, run=make_machine())
        digests.append(stored.load(tmp_path / "a.json").evaluation)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_scores_that_are_no_numbers_are_refused(
    make_model: Callable[..., Path], tmp_path: Path, make_machine: Callable[..., Any]
) -> None:
    np.savez(tmp_path / "a.npz", pixels=np.zeros((2, 16, 16, 3), np.uint8), labels=np.array([0, 1]))
    options = Options(processes=1, evaluation=tmp_path / "a.npz", baseline=tmp_path / "a.json")
    with pytest.raises(DataError, match="not finite"):
        measure(make_model("nan.onnx", gain=float("nan")), options, run=make_machine())
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("dies_at", [1, 5, 30])
def test_a_process_that_dies_leaves_the_old_baseline(
    tiny_bundle: Path, tmp_path: Path, make_machine: Callable[..., Any], dies_at: int
) -> None:
    kept = tmp_path / "kept" / "main.json"
    kept.parent.mkdir()
    kept.write_text("the old one")
    machine = make_machine()
    machine.dies_at = dies_at
    with pytest.raises(DeviceError, match="ended with -9"):
        measure(tiny_bundle, Options(processes=1, baseline=kept), run=machine)
    assert len(machine.requests) == dies_at
    assert kept.read_text() == "the old one"
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"device": "pi@board"}, UsageError, "--device pi@board: expected local, or ssh://"),
        ({"evaluation": Path("data")}, UsageError, "--eval is kept in a baseline"),
        ({"baseline": Path("main.txt")}, UsageError, r"ends with \.json"),
        ({"baseline": Path("file/main.json")}, DeviceError, "the baseline .* cannot be written"),
        ({"mode": "paced"}, UsageError, "time between two images"),
        ({"inputs": "none"}, DataError, "none: holds no image"),
        ({"evaluation": Path("none"), "baseline": Path("a.json")}, DataError, "none: no folder is a class"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_timed(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_machine: Callable[..., Any],
    options: dict[str, Any],
    error: type[Exception],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "none").mkdir()
    machine = make_machine()
    with pytest.raises(error, match=named):
        measure(tiny_bundle, Options(**options), run=machine)
    assert machine.requests == []


def test_a_changed_bundle_is_not_timed(tiny_bundle: Path, make_machine: Callable[..., Any]) -> None:
    shutil.copy(tiny_bundle / "LICENSES.md", tiny_bundle / "MODEL_CARD.md")
    machine = make_machine()
    with pytest.raises(Exception, match=r"MODEL_CARD\.md: sha256") as caught:
        measure(tiny_bundle, Options(), run=machine)
    assert getattr(caught.value, "exit_code", None) == 8
    assert machine.requests == []


def test_this_machine_is_local() -> None:
    require_local("local")
    with pytest.raises(UsageError, match="--device") as caught:
        require_local("LOCAL")
    assert "compare with it there" in str(caught.value.hint)

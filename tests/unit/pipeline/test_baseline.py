"""A stored baseline: whole or not at all, as it was written or refused, and only where it may be compared."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeft.core.errors import DeviceError, IntegrityError, UsageError
from edgeft.pipeline import baseline as module
from edgeft.pipeline.baseline import Baseline, is_baseline, key, load, require_same_key, save

STORED = Baseline(
    subject={"path": "dist/tiny", "name": "tiny", "classes": ["red", "green"]},
    key={"device": {"cpu": "one", "cores": 2}, "versions": {"numpy": "2.0"}, "threads": 1, "spinning": False},
    round_logs=np.array([0.1, -0.25, 1 / 3]),
    median_ms=12.5,
    scores=np.array([[0.75, 0.25], [0.125, 0.875]]),
    evaluation="ab12",
    bench={"mode": "single", "load_ms": 1.5e-7, "energy_j": None},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(tmp_path / "main.json", STORED)
    return tmp_path / "main.json"


def test_what_was_saved_comes_back(path: Path) -> None:
    found = load(path)
    np.testing.assert_array_equal(found.round_logs, STORED.round_logs)
    np.testing.assert_array_equal(found.scores, STORED.scores)  # type: ignore[arg-type]  # there are scores
    assert (found.round_logs.dtype, found.median_ms, found.evaluation) == (np.float64, 12.5, "ab12")
    assert (found.subject, found.key, found.bench) == (STORED.subject, STORED.key, STORED.bench)


def test_a_baseline_without_scores_has_none(tmp_path: Path) -> None:
    save(tmp_path / "a.json", replace(STORED, scores=None, evaluation=None))
    found = load(tmp_path / "a.json")
    assert (found.scores, found.evaluation) == (None, None)


def test_no_byte_of_it_can_be_edited(path: Path) -> None:
    """Each letter and each digit, in names as in values, is exchanged for its neighbour."""
    written = path.read_bytes()
    edited = [at for at, byte in enumerate(written) if chr(byte).isalnum()]
    assert len(edited) > 300
    for at in edited:
        path.write_bytes(written[:at] + bytes([written[at] ^ 1]) + written[at + 1 :])
        with pytest.raises(IntegrityError):
            load(path)
    path.write_bytes(written)
    assert load(path).median_ms == 12.5


@pytest.mark.parametrize("what", ["subject", "key", "round_logs", "median_ms", "scores", "evaluation", "bench"])
@pytest.mark.parametrize("value", [None, 1, float("nan"), float("inf"), "\ud800"])
def test_an_edited_value_is_named_an_edit(path: Path, what: str, value: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), what: value}))
    with pytest.raises(IntegrityError, match="edited after it was written") as caught:
        load(path)
    assert caught.value.exit_code == 8


def test_a_value_that_was_added_or_taken_away_is_an_edit(path: Path) -> None:
    values = json.loads(path.read_text())
    for edited in ({**values, "note": 1}, {name: value for name, value in values.items() if name != "digest"}):
        path.write_text(json.dumps(edited))
        with pytest.raises(IntegrityError, match="edited"):
            load(path)


@pytest.mark.parametrize("data", [b"", b"{", b"round_logs: 1", b"\xff\xfe{}", b"[" * 200_000])
def test_what_is_not_json_says_so(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"a\.json: not JSON"):
        load(tmp_path / "a.json")


@pytest.mark.parametrize("change", [{"kind": "bench"}, {"kind": None}, {"schema": 1}, {"schema": "2"}])
def test_another_kind_or_schema_is_no_baseline(path: Path, change: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(IntegrityError, match="no baseline of schema 2"):
        load(path)


@pytest.mark.parametrize("text", ["[]", "null", "1", '"baseline"'])
def test_json_that_is_no_object_is_no_baseline(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(IntegrityError, match="no baseline of schema 2"):
        load(tmp_path / "a.json")


def test_a_missing_one_names_the_command_that_makes_it(tmp_path: Path) -> None:
    gone = tmp_path / "gone.json"
    with pytest.raises(DeviceError, match=r"gone\.json: cannot be read") as caught:
        load(gone)
    assert caught.value.hint == f"edgeft bench BUNDLE --save-baseline {gone}"


def test_a_full_disk_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(descriptor))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(path, replace(STORED, median_ms=1.0))
    assert path.read_bytes() == written
    assert list(path.parent.iterdir()) == [path]


def test_a_baseline_is_known_by_its_name() -> None:
    assert is_baseline(Path("a/main.json"))
    assert not is_baseline(Path("a/main.onnx"))
    assert not is_baseline(Path("dist/main"))


def test_the_key_of_this_machine_fits_itself(tmp_path: Path) -> None:
    here = key(2, spinning=True, inputs="golden.npy")
    save(tmp_path / "a.json", replace(STORED, key=here))
    require_same_key(tmp_path / "a.json", load(tmp_path / "a.json"), key(2, spinning=True, inputs="golden.npy"))
    assert (here["threads"], here["spinning"], here["inputs"]) == (2, True, "golden.npy")


def _other_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.machine, "cpu", lambda: {"cpu": "another", "cores": 64})


def _other_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "versions", lambda names: dict.fromkeys(names, "0.0"))


def _nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    del monkeypatch


@pytest.mark.parametrize(
    ("change", "threads", "spinning", "inputs", "named"),
    [
        (_other_device, 1, False, "noise", ["device.cpu: ", " then, another now", "device.cores: ", " then, 64 now"]),
        (_other_version, 1, False, "noise", ["versions.onnxruntime: ", " then, 0.0 now", "versions.numpy"]),
        (_nothing, 2, False, "noise", ["threads: 1 then, 2 now"]),
        (_nothing, 1, True, "noise", ["spinning: False then, True now"]),
        (_nothing, 1, False, "golden.npy", ["inputs: noise then, golden.npy now"]),
    ],
)
def test_what_differs_is_named(
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
    threads: int,
    spinning: bool,  # noqa: FBT001 - a parameter of the table above
    inputs: str,
    named: list[str],
) -> None:
    old = replace(STORED, key=key(1, spinning=False, inputs="noise"))
    change(monkeypatch)
    with pytest.raises(UsageError, match=r"main\.json: this baseline cannot be held against") as caught:
        require_same_key(Path("main.json"), old, key(threads, spinning=spinning, inputs=inputs))
    for words in named:
        assert words in caught.value.message
    assert "--save-baseline" in (caught.value.hint or "")

"""Findings on facts written by hand."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeft.core.errors import DataError, DeviceError
from edgeft.data.audit.counts import certifiable_margin, class_counts, count
from edgeft.data.audit.duplicates import (
    Copies,
    contradictory_labels,
    copies_across_splits,
    copies_within,
    duplicate_findings,
    yielding,
)
from edgeft.data.audit.finding import Finding
from edgeft.data.audit.quarantine import quarantine
from edgeft.data.audit.resolution import resolution
from edgeft.data.audit.shift import class_shift, picture_shift
from edgeft.data.config import NearDuplicatesConfig, SplitConfig
from edgeft.data.decode import ImageFacts, create_array
from edgeft.data.partition import partition
from edgeft.data.sources.rows import SourceRow
from edgeft.data.writing import keep_rows_
from edgeft.runtime.preprocess import InputContract

CONTRACT = InputContract(224, 224, "squash", None, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def facts_of(digests: Sequence[str], side: Sequence[int] | None = None) -> ImageFacts:
    n = len(digests)
    rng = np.random.default_rng(0)
    sides = np.array(side or [224] * n, dtype=np.int64)
    return ImageFacts(
        sha256=list(digests),
        pixel_sha256=list(digests),
        width=sides,
        height=sides + 10,
        brightness=np.zeros(n),
        contrast=np.zeros(n),
        phash=rng.integers(0, 2**63, n).astype(np.uint64),
        thumbnail=rng.integers(0, 256, (n, 32, 32), dtype=np.uint8),
        failures={},
    )


def row(path: str, label: str, group: str | None = None, split: str | None = None) -> SourceRow:
    return SourceRow(path, label, group or path, split, f"row of {path}")


def test_the_lesser_split_yields() -> None:
    splits = ["train", "val", "test", "train", "train"]
    exact, near = copies_across_splits(facts_of(["a", "a", "a", "b", "c"]), splits, NearDuplicatesConfig())
    assert {(pair.copy, pair.kept) for pair in exact} == {(0, 2), (1, 2), (0, 1)}
    assert near == ()
    assert yielding(exact, splits) == {0, 1}


def test_a_train_image_stays_when_its_val_twin_is_already_out() -> None:
    splits = ["train", "val", "test"]
    pairs = [
        Copies(copy=1, kept=2, exact=False, hamming=1, correlation=1.0),
        Copies(copy=0, kept=1, exact=False, hamming=1, correlation=1.0),
    ]
    assert yielding(pairs, splits) == {1}


def test_refusing_names_the_pairs() -> None:
    pair = Copies(copy=0, kept=1, exact=True, hamming=0, correlation=1.0)
    with pytest.raises(DataError) as caught:
        duplicate_findings([pair], [], ["x/1.png", "x/2.png"], ["val", "test"], "refuse")
    assert "x/1.png (val) and x/2.png (test)" in caught.value.message


def test_copies_within_test_are_a_warning() -> None:
    paths = list("uvwxyz")
    findings = copies_within(facts_of(["a", "a", "a", "b", "c", "c"]), ["test", "test", "test", *["train"] * 3], paths)
    assert findings[0].severity == "warning"
    assert dict(findings[0].numbers) == {"test": 2, "train": 1}
    assert copies_within(facts_of(["a", "b"]), ["test", "test"], ["u", "v"]) == ()


def test_contradictions_name_both_labels() -> None:
    found = contradictory_labels(facts_of(["a", "a", "b", "b"]), ["ok", "bad", "ok", "ok"], ["1", "2", "3", "4"])
    assert found[0].items == [[{"path": "1", "class": "ok"}, {"path": "2", "class": "bad"}]]


def test_small_classes_are_named() -> None:
    counts = {"train": {"a": 500, "b": 99}, "val": {"a": 100, "b": 10}, "test": {"a": 100, "b": 9}}
    finding = class_counts(counts)
    assert finding.severity == "warning"
    assert "fewer than 10 images of a class: 'b' in test: 9" in finding.message
    assert "fewer than 100 images of a class: 'b' in train: 99, 'b' in val: 10" in finding.message
    assert class_counts({"train": {"a": 100, "b": 100}}).severity == "info"


def test_count_has_a_zero_for_what_is_missing() -> None:
    assert count(["train"], ["a"], ["a", "b"], ["train", "test"]) == {
        "train": {"a": 1, "b": 0},
        "test": {"a": 0, "b": 0},
    }


def test_the_certifiable_margin_is_the_rules_table_read_backwards() -> None:
    """rules/verification.md: 1713 images certify 2 pp at 5 % ... 1 pp at 2 % discordance."""
    margins = certifiable_margin(1713).numbers["margin_pp"]
    assert isinstance(margins, dict)
    assert margins["0.02"] == pytest.approx(1.0, abs=0.001)


def test_a_class_share_that_differs_is_a_warning() -> None:
    same = {"train": {"a": 300, "b": 300}, "val": {"a": 100, "b": 100}, "test": {"a": 100, "b": 100}}
    other = {**same, "test": {"a": 150, "b": 50}}
    assert class_shift(same).severity == "info"
    assert class_shift(same).numbers["p_value"] == 1
    assert class_shift(other).severity == "warning"


def test_darker_test_images_are_a_warning() -> None:
    rng = np.random.default_rng(0)
    splits = ["train"] * 300 + ["val"] * 100 + ["test"] * 100
    values = rng.normal(100, 10, 500)
    assert picture_shift(values, "brightness", splits, grouped=False).severity == "info"
    values[400:] -= 15
    finding = picture_shift(values, "brightness", splits, grouped=True)
    assert finding.severity == "warning"
    assert "p-values are too small" in finding.message


def test_upscaling_is_named() -> None:
    finding = resolution(facts_of(["a", "b", "c"], side=[28, 224, 300]), ["s.png", "m.png", "l.png"], CONTRACT)
    assert finding.severity == "warning"
    assert finding.items == [{"path": "s.png", "width": 28, "height": 38}]
    assert resolution(facts_of(["a"], side=[200]), ["a"], CONTRACT).severity == "info"


def test_quarantine_refuses_a_broken_test_image() -> None:
    assert [item.path for item in quarantine({1: "1.png: empty"}, ["0.png", "1.png"], ["test", "val"])] == ["1.png"]
    with pytest.raises(DataError, match=r"1 images of the test split cannot be read:\n  0\.png: empty"):
        quarantine({0: "0.png: empty"}, ["0.png", "1.png"], ["test", "val"])


def test_a_finding_holds_fifty_items_at_most() -> None:
    assert len(Finding("x", "info", "y", list(range(80))).to_json()["items"]) == 50


def test_folds_test_every_image_once() -> None:
    rows = [row(f"{k}/{i}", k, group=f"{k}{i // 2}") for k in "ab" for i in range(24)]
    tested: list[str] = []
    for fold in range(3):
        config = SplitConfig(train=0.7, val=0.2, test=0.1, folds=3, fold=fold)
        splits = partition(rows, ("a", "b"), config).splits
        tested += [r.path for r, split in zip(rows, splits, strict=True) if split == "test"]
        assert {split: splits.count(split) for split in ("train", "val", "test")} == {"train": 24, "val": 8, "test": 16}
    assert sorted(tested) == sorted(r.path for r in rows)


def test_val_is_carved_from_train_by_group_and_said() -> None:
    rows = [row(f"{k}/{i}", k, f"{k}{i // 2}", "train" if i < 16 else "test") for k in "ab" for i in range(20)]
    division = partition(rows, ("a", "b"), SplitConfig())
    by_group = {r.group: set() for r in rows}
    for r, split in zip(rows, division.splits, strict=True):
        by_group[r.group].add(split)
        assert (split == "test") == (r.split == "test")
    assert all(len(found) == 1 for found in by_group.values())
    assert division.splits.count("val") == 8
    assert "8 of the 32 train rows were taken for val, by group" in division.findings[0].message


@pytest.mark.parametrize(("missing", "hint"), [("train", None), ("test", "rename val to test")])
def test_an_explicit_split_needs_train_and_test(missing: str, hint: str | None) -> None:
    rows = [row(f"{k}{s}", k, None, s) for k in "ab" for s in ("train", "val", "test") if s != missing]
    with pytest.raises(DataError, match=f"have no {missing}") as caught:
        partition(rows, ("a", "b"), SplitConfig())
    assert hint is None or hint in str(caught.value.hint)


def test_a_class_missing_from_an_explicit_split_is_named() -> None:
    rows = [row(f"{k}{s}", k, None, s) for k in "ab" for s in ("train", "val", "test") if (k, s) != ("b", "val")]
    with pytest.raises(DataError, match="the split val has no row of the class 'b'"):
        partition(rows, ("a", "b"), SplitConfig())


def test_groups_in_two_explicit_splits_are_a_warning() -> None:
    rows = [row(f"{k}{s}{i}", k, f"{k}{i}", s) for k in "ab" for s in ("train", "val", "test") for i in range(2)]
    findings = partition(rows, ("a", "b"), SplitConfig()).findings
    assert findings[-1].severity == "warning"
    assert findings[-1].items == ["a0", "a1", "b0", "b1"]


@pytest.mark.parametrize("keep", [[0, 1, 2, 3, 4], [1, 3], [4], [0, 2, 3, 4]])
def test_rows_that_stay_move_up_in_the_file(tmp_path: Path, keep: list[int]) -> None:
    path = tmp_path / "pixels.npy"
    array = create_array(path, (5, 2, 3, 3))
    array[:] = np.arange(5 * 18, dtype=np.uint8).reshape(5, 2, 3, 3)
    expected = np.array(array)[keep]
    array.flush()
    keep_rows_(path, keep)
    assert np.array_equal(np.load(path), expected)
    assert path.stat().st_size == 128 + 18 * len(keep)


def test_a_full_disk_is_an_error_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        del descriptor, offset, length
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DeviceError, match="no room for 218 bytes of pixels"):
        create_array(tmp_path / "pixels.npy", (5, 2, 3, 3))
    assert list(tmp_path.iterdir()) == []

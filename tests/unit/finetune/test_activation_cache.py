"""Stored activations: computed once, found again, resumed where a kill left them."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeft.core.errors import DeviceError
from edgeft.core.events import Event, Progress, ignore
from edgeft.finetune.cache import CHUNK, ActivationCache

ROWS = np.arange(0, 6 * CHUNK, 2, dtype=np.int64)
SPLITS = {"train": ROWS, "val": ROWS[:3] + 1}


class Source:
    """Counts the rows it is asked for; the activation of row r in view v is 1000 v + r."""

    def __init__(self, maps: bool) -> None:  # noqa: FBT001
        self.rows = 0
        self.maps = maps

    def __call__(self, split: str, view: int, rows: np.ndarray) -> Tensor:
        del split
        self.rows += len(rows)
        values = torch.from_numpy(rows).float() + 1000 * view
        return values[:, None, None, None].expand(-1, 2, 3, 4) if self.maps else values[:, None]


@pytest.mark.parametrize("maps", [False, True])
def test_rows_come_back_in_any_order(tmp_path: Path, maps: bool) -> None:  # noqa: FBT001
    cache = ActivationCache(tmp_path, SPLITS, Source(maps), ignore)
    found = cache.rows("train", 2, np.array([8, 0, 120]))
    assert found.flatten(1)[:, 0].tolist() == [2008.0, 2000.0, 2120.0]
    assert found.shape == ((3, 2, 3, 4) if maps else (3, 1))
    assert found.is_contiguous(memory_format=torch.channels_last) if maps else True


def test_each_view_is_computed_once(tmp_path: Path) -> None:
    source = Source(maps=False)
    for _ in range(2):
        cache = ActivationCache(tmp_path, SPLITS, source, ignore)
        cache.prepare("train", 0)
        cache.rows("train", 0, ROWS[:5])
        cache.rows("val", 0, ROWS[:3] + 1)
    assert source.rows == len(ROWS) + 3
    assert cache.computed == 0
    cache.drop()
    assert list(tmp_path.iterdir()) == [] if tmp_path.exists() else True


def test_a_kill_costs_at_most_what_was_not_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeft.finetune.cache._FLUSH_SECONDS", -1.0)

    def kill(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 2 * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ActivationCache(tmp_path, SPLITS, Source(maps=True), kill).prepare("train", 1)
    assert not (tmp_path / "train_1.npy").exists()
    source = Source(maps=True)
    array = ActivationCache(tmp_path, SPLITS, source, ignore).prepare("train", 1)
    assert source.rows == len(ROWS) - CHUNK
    assert (array[:, 0, 0, 0] == ROWS + 1000).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train_1.npy"]


def test_a_full_disk_is_an_error_before_anything_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        del descriptor, offset, length
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DeviceError, match=r"no room for \d+ bytes of features train, view 2 "):
        ActivationCache(tmp_path, SPLITS, Source(maps=True), ignore).prepare("train", 1)
    assert list(tmp_path.iterdir()) == []

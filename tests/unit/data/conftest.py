"""Small pictures on disk: smooth random ones, which no two share and any format keeps."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edgeft.core.events import Event, ignore
from edgeft.core.stage import Context
from edgeft.data.config import DataConfig, InputConfig

SIDE = 48
INPUT = InputConfig(
    height=32, width=32, resize="squash", filter="bilinear", mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)
)


def picture(seed: int, side: int = SIDE) -> npt.NDArray[np.uint8]:
    """Return a smooth random RGB picture, uint8 [side, side, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture
def save() -> Callable[..., Path]:
    """Save picture number `seed` at a path."""

    def write(path: Path, seed: int, **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed)).save(path, **options)
        return path

    return write


@pytest.fixture
def tree(tmp_path: Path, save: Callable[..., Path]) -> Path:
    """Two class folders with ten pictures each."""
    root = tmp_path / "images"
    for k, name in enumerate(("bad", "ok")):
        for i in range(10):
            save(root / name / f"{i}.png", 100 * k + i)
    return root


@pytest.fixture
def config() -> Callable[..., DataConfig]:
    """Make a data config with a small input."""

    def make(**values: object) -> DataConfig:
        return DataConfig.model_validate({"source": "x", "input": INPUT, **values})

    return make


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., Context]:
    """Make a context whose output folder is new; events go to `events`."""

    def make(events: list[Event] | None = None, name: str = "out", threads: int = 2) -> Context:
        folder = tmp_path / name
        folder.mkdir()
        sink = ignore if events is None else events.append
        return Context(folder, tmp_path / "scratch", 0, threads, sink)

    return make

"""Reading every image once: digest, decode, preprocess, and the facts that the audit needs.

Threads only wait for the disk and for Pillow, which lets go of the interpreter; each image has its own slot, so the
result does not depend on which thread was quicker.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgeft.core.disk import take_space
from edgeft.core.errors import DataError
from edgeft.core.events import EventSink, Progress
from edgeft.data.hashing import THUMBNAIL, perceptual_hash
from edgeft.runtime.preprocess import InputContract, decode, preprocess, read_image_bytes

_REPORT_EVERY = 16


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What was read off the N images besides their pixels.

    Args:
        sha256: hex digest of each file.
        pixel_sha256: hex digest of each image as the model sees it.
        width: int64 [N], pixels, upright.
        height: int64 [N].
        brightness: float64 [N], mean of the model's pixels, 0..255.
        contrast: float64 [N], their standard deviation.
        phash: uint64 [N], perceptual hash.
        thumbnail: uint8 [N, 32, 32], grey.
        failures: reason by position, for images that could not be read; their other facts are empty or 0.
    """

    sha256: list[str]
    pixel_sha256: list[str]
    width: npt.NDArray[np.int64]
    height: npt.NDArray[np.int64]
    brightness: npt.NDArray[np.float64]
    contrast: npt.NDArray[np.float64]
    phash: npt.NDArray[np.uint64]
    thumbnail: npt.NDArray[np.uint8]
    failures: dict[int, str]

    def __len__(self) -> int:
        return len(self.sha256)

    def take(self, keep: Sequence[int]) -> "ImageFacts":
        """Return the facts of the images at the positions `keep`; failures are left out."""
        at = list(keep)
        return ImageFacts(
            sha256=[self.sha256[i] for i in at],
            pixel_sha256=[self.pixel_sha256[i] for i in at],
            width=self.width[at],
            height=self.height[at],
            brightness=self.brightness[at],
            contrast=self.contrast[at],
            phash=self.phash[at],
            thumbnail=self.thumbnail[at],
            failures={},
        )


def read_images(
    root: Path, paths: Sequence[str], contract: InputContract, target: Path, *, threads: int, emit: EventSink
) -> ImageFacts:
    """Decode the N images below `root` and write them to the .npy file `target`, uint8 [N, H, W, 3], row by row.

    Args:
        root: the images' folder.
        paths: relative paths, one for each row.
        contract: the model's input.
        target: the file to write; rows of unreadable images are 0.
        threads: how many images are read at a time.
        emit: where progress goes.

    Raises:
        DeviceError: the disk has no room for the pixels.
    """
    pixels = create_array(target, (len(paths), contract.height, contract.width, 3))
    facts = _empty_facts(len(paths))

    def read(position: int) -> None:
        try:
            _read_one(root, paths[position], contract, position, pixels, facts)
        except DataError as error:
            facts.failures[position] = error.message

    with ThreadPoolExecutor(threads) as pool:
        for done, _ in enumerate(pool.map(read, range(len(paths))), 1):
            if done % _REPORT_EVERY == 0 or done == len(paths):
                emit(Progress("decode images", done, len(paths)))
    pixels.flush()
    return facts


def create_array(target: Path, shape: tuple[int, ...]) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    """Make a zeroed uint8 .npy file whose space on disk is already taken.

    Raises:
        DeviceError: the disk has no room.
    """
    array = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
    take_space(target, purpose="pixels")
    return array


def _read_one(
    root: Path, path: str, contract: InputContract, position: int, pixels: npt.NDArray[np.uint8], facts: ImageFacts
) -> None:
    data = read_image_bytes(root / path)
    facts.sha256[position] = hashlib.sha256(data).hexdigest()
    image = decode(data, path)
    seen = preprocess(image, contract)
    grey = np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS))
    pixels[position] = seen
    facts.pixel_sha256[position] = hashlib.sha256(seen.tobytes()).hexdigest()
    facts.width[position], facts.height[position] = image.size
    facts.brightness[position] = seen.mean()
    facts.contrast[position] = seen.std()
    facts.thumbnail[position] = grey
    facts.phash[position] = perceptual_hash(grey)


def _empty_facts(n: int) -> ImageFacts:
    return ImageFacts(
        sha256=[""] * n,
        pixel_sha256=[""] * n,
        width=np.zeros(n, dtype=np.int64),
        height=np.zeros(n, dtype=np.int64),
        brightness=np.zeros(n),
        contrast=np.zeros(n),
        phash=np.zeros(n, dtype=np.uint64),
        thumbnail=np.zeros((n, THUMBNAIL, THUMBNAIL), dtype=np.uint8),
        failures={},
    )

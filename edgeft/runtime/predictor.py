"""From image files to decisions, with the bundle's own preprocessing, class order and model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from edgeft.core.errors import DataError, IntegrityError
from edgeft.runtime.manifest import MODEL, Manifest, read_files
from edgeft.runtime.preprocess import Pixels, decode, load_pixels, preprocess
from edgeft.runtime.session import Model, Scores

Source: TypeAlias = Path | str | bytes | Image.Image | Pixels
"""A file's path, a file's bytes, a Pillow image, or RGB pixels uint8 [height, width, 3] of any size."""

_RGB_RANK = 3


@dataclass(frozen=True, slots=True)
class Prediction:
    """One decision.

    Args:
        label: name of the decided class; a part for review is not decided to be good.
        index: its place in the class order.
        scores: calibrated score by class, in class order; they sum to 1.
        path: the image's path; None where it came as bytes or pixels.
        review: whether a person should look at it; never where the highest score decides.
    """

    label: str
    index: int
    scores: tuple[float, ...]
    path: Path | None
    review: bool = False


class Predictor:
    """A bundle that is loaded.

    Args:
        manifest: the bundle's.
        model: its graph.

    Raises:
        IntegrityError: the model's input is not the one that the manifest names.
    """

    def __init__(self, manifest: Manifest, model: Model) -> None:
        contract = manifest.input
        if model.input_size != (contract.height, contract.width):
            raise IntegrityError(f"{manifest.name}: the model takes {model.input_size}, the manifest says {contract}")
        self.manifest = manifest
        self._model = model

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the order of the scores."""
        return self.manifest.classes

    def predict(self, images: Sequence[Source]) -> list[Prediction]:
        """Decide each image by itself (batch 1, as it was verified and timed).

        Args:
            images: see `Source`.

        Raises:
            DataError: an image is missing or cannot be decoded; nothing is skipped.
        """
        return [self._one(image, index) for index, image in enumerate(images)]

    def scores(self, pixels: Pixels) -> Scores:
        """Return scores float32 [N, K] of preprocessed `pixels` uint8 [N, H, W, 3], one image at a time.

        Raises:
            IntegrityError: the model gives other than one score per class.
        """
        found = [self._model.scores(np.ascontiguousarray(pixels[index : index + 1])) for index in range(len(pixels))]
        expected = (1, len(self.classes))
        if any(one.shape != expected for one in found):
            raise IntegrityError(f"{self.manifest.name}: scores {found[0].shape} for {len(self.classes)} classes")
        return np.concatenate(found) if found else np.empty((0, len(self.classes)), np.float32)

    def pixels(self, image: Source, name: str = "image") -> Pixels:
        """Return `image` as the model's input, uint8 [H, W, 3]; `name` is what messages call it.

        Raises:
            DataError: it cannot be decoded.
        """
        contract = self.manifest.input
        if isinstance(image, str | Path):
            return load_pixels(Path(image), contract)
        if isinstance(image, bytes):
            return preprocess(decode(image, name), contract)
        if isinstance(image, Image.Image):
            return preprocess(image, contract)
        if image.dtype != np.uint8 or image.ndim != _RGB_RANK or image.shape[2] != _RGB_RANK:
            raise DataError(f"{name}: {image.dtype} {image.shape}, expected uint8 [height, width, 3] in RGB")
        return preprocess(Image.fromarray(image), contract)

    def _one(self, image: Source, index: int) -> Prediction:
        path = Path(image) if isinstance(image, str | Path) else None
        scores, rule = self.scores(self.pixels(image, str(path or f"image {index}"))[None]), self.manifest.decision
        decided = int(rule.decided(scores)[0])
        listed = tuple(float(score) for score in scores[0])
        return Prediction(self.classes[decided], decided, listed, path, bool(rule.review(scores)[0]))


def load(bundle: Path, threads: int = 1) -> Predictor:
    """Open the bundle folder `bundle`; see `edgeft.runtime.load`."""
    manifest, contents = read_files(bundle)
    return Predictor(manifest, Model(contents[MODEL], str(bundle / MODEL), threads=threads))

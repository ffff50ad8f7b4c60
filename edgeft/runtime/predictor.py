"""From image files or texts to decisions, with the bundle's own preprocessing, class order and model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeft.core.errors import IntegrityError
from edgeft.core.stage import Json
from edgeft.runtime.encode import Encoder, Source, one_row, open_encoder
from edgeft.runtime.manifest import MODEL, TOKENIZER, Manifest, read_files
from edgeft.runtime.preprocess import InputContract
from edgeft.runtime.session import Model, Scores


@dataclass(frozen=True, slots=True)
class Prediction:
    """One decision.

    Args:
        label: name of the decided class; a part for review is not decided to be good.
        index: its place in the class order.
        scores: calibrated score by class, in class order; they sum to 1.
        path: the image's path; None where it came as bytes or pixels, or is a text.
        review: whether a person should look at it; never where the highest score decides.
    """

    label: str
    index: int
    scores: tuple[float, ...]
    path: Path | None
    review: bool = False

    def to_json(self, classes: Sequence[str]) -> dict[str, Json]:
        """Return JSON values; scores by class name, in class order."""
        return {
            "label": self.label,
            "index": self.index,
            "score": self.scores[self.index],
            "review": self.review,
            "scores": dict(zip(classes, self.scores, strict=True)),
        }


class Predictor:
    """A bundle that is loaded; threads may share one.

    Args:
        manifest: the bundle's.
        model: its graph.
        tokenizer: the tokenizer's file, of a text model.

    Raises:
        IntegrityError: the model's input is not the one that the manifest names, or the tokenizer is another.
        DeviceError: texts need the `tokenizers` package, which is not installed.
    """

    def __init__(self, manifest: Manifest, model: Model, tokenizer: bytes | None = None) -> None:
        contract = manifest.input
        taken = tuple(item.name for item in model.inputs)
        if isinstance(contract, InputContract):
            fits = model.input_size == (contract.height, contract.width)
        else:
            fits = taken == contract.inputs
        if not fits:
            raise IntegrityError(
                f"{manifest.name}: the model takes {model.input_size or ', '.join(taken)}, the manifest says {contract}"
            )
        self.manifest = manifest
        self.encode: Encoder = open_encoder(contract, tokenizer)
        """Turns one source into what the graph takes."""
        self._model = model

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the order of the scores."""
        return self.manifest.classes

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph's inputs."""
        return tuple(item.name for item in self._model.inputs)

    @property
    def takes_texts(self) -> bool:
        """Whether it decides texts, not images."""
        return not isinstance(self.manifest.input, InputContract)

    def predict(self, sources: Sequence[Source]) -> list[Prediction]:
        """Decide each image or text by itself (batch 1, as it was verified and timed).

        Args:
            sources: see `Source`.

        Raises:
            DataError: an image is missing or cannot be decoded, or a text is empty; nothing is skipped.
        """
        return [self._one(source, index) for index, source in enumerate(sources)]

    def decide(self, arrays: Mapping[str, npt.NDArray[Any]]) -> list[Prediction]:
        """Decide encoded `arrays` [N, ...] by input, one row at a time: pixels or tokens that were made elsewhere.

        Raises:
            IntegrityError: the model gives other than one score per class.
        """
        scores = self.scores(arrays)
        return [self._decided(scores[index : index + 1]) for index in range(len(scores))]

    def decide_together(self, arrays: Mapping[str, npt.NDArray[Any]]) -> list[Prediction]:
        """Decide encoded `arrays` [N, ...] by input in one run of the graph; see `scores_together`."""
        scores = self.scores_together(arrays)
        return [self._decided(scores[index : index + 1]) for index in range(len(scores))]

    def scores(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Scores:
        """Return scores float32 [N, K] of encoded `arrays` [N, ...] by input, one row at a time.

        Raises:
            IntegrityError: the model gives other than one score per class.
        """
        count = len(next(iter(arrays.values())))
        found = [self._model.scores(one_row(arrays, index)) for index in range(count)]
        expected = (1, len(self.classes))
        if any(one.shape != expected for one in found):
            raise IntegrityError(f"{self.manifest.name}: scores {found[0].shape} for {len(self.classes)} classes")
        return np.concatenate(found) if found else np.empty((0, len(self.classes)), np.float32)

    def scores_together(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Scores:
        """Return scores float32 [N, K] of encoded `arrays` [N, ...] by input, all rows in one run of the graph.

        A graph that quantizes its activations as it runs scores a row otherwise than alone.

        Raises:
            IntegrityError: the model gives other than one score per class.
        """
        found, expected = self._model.scores(arrays), (len(next(iter(arrays.values()))), len(self.classes))
        if found.shape != expected:
            raise IntegrityError(f"{self.manifest.name}: scores {found.shape}, expected {expected}")
        return found

    def _one(self, source: Source, index: int) -> Prediction:
        path = None if self.takes_texts or not isinstance(source, str | Path) else Path(source)
        name = str(path or f"{'text' if self.takes_texts else 'image'} {index}")
        return self._decided(self.scores(self.encode(source, name)), path)

    def _decided(self, scores: Scores, path: Path | None = None) -> Prediction:
        """Return the decision on scores [1, K]."""
        rule = self.manifest.decision
        index = int(rule.decided(scores)[0])
        return Prediction(self.classes[index], index, tuple(scores[0].tolist()), path, bool(rule.review(scores)[0]))


def load(bundle: Path, threads: int = 1, public_key: Path | None = None) -> Predictor:
    """Open the bundle folder `bundle`; see `edgeft.runtime.load`."""
    manifest, contents = read_files(bundle, public_key)
    return open_predictor(manifest, contents, bundle, threads)


def open_predictor(manifest: Manifest, contents: Mapping[str, bytes], bundle: Path, threads: int = 1) -> Predictor:
    """Open a bundle whose files were read and proven.

    Raises:
        IntegrityError: the model or the tokenizer is not what the manifest says.
        DeviceError: texts need the `tokenizers` package, which is not installed.
    """
    model = Model(contents[MODEL], str(bundle / MODEL), threads=threads)
    return Predictor(manifest, model, contents.get(TOKENIZER))

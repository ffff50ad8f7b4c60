"""From what a user has, an image or a text, to the arrays that the graph takes: by the contract in the bundle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgeft.core.errors import DataError, IntegrityError
from edgeft.core.stage import Json
from edgeft.runtime.preprocess import INPUT, InputContract, Pixels, decode, load_pixels, preprocess
from edgeft.runtime.text import KIND, MASK, Text, TextContract, TextEncoder

Feeds: TypeAlias = dict[str, npt.NDArray[Any]]
"""Arrays [1, ...] by the graph's input."""
Contract: TypeAlias = InputContract | TextContract
"""How a source becomes the graph's input."""
ImageSource: TypeAlias = Path | str | bytes | Image.Image | Pixels
"""A file's path, a file's bytes, a Pillow image, or RGB pixels uint8 [height, width, 3] of any size."""
Source: TypeAlias = ImageSource | Text
"""Of an image model an `ImageSource`; of a text model a text, or two that are judged together."""

_RGB_RANK = 3


class Encoder(Protocol):
    """Turns one source into feeds."""

    def __call__(self, source: Any, name: str) -> Feeds:  # noqa: ANN401 - a source of its own kind
        """Return `source` as the graph takes it; `name` is what messages call it.

        Raises:
            DataError: the source cannot be used.
        """
        ...


class ImageEncoder:
    """Decodes, resizes and crops.

    Args:
        contract: how.
    """

    def __init__(self, contract: InputContract) -> None:
        self.contract = contract
        whole = contract.resize_to in {None, contract.height} and contract.resize_to in {None, contract.width}
        self._unchanged = (contract.height, contract.width, _RGB_RANK) if whole else None
        """Shape of pixels that resize and crop leave as they are: they reach the graph without a copy."""

    def __call__(self, source: ImageSource, name: str) -> Feeds:
        """Return pixels uint8 [1, H, W, 3]; a view of a `source` that has the model's size already.

        Raises:
            DataError: the image is missing or cannot be decoded.
        """
        return {INPUT: self.pixels(source, name)[None]}

    def pixels(self, source: ImageSource, name: str) -> Pixels:
        """Return uint8 [H, W, 3], `source` itself where nothing is to be done; for the rest see the call."""
        if isinstance(source, str | Path):
            return load_pixels(Path(source), self.contract)
        if isinstance(source, bytes):
            return preprocess(decode(source, name), self.contract)
        if isinstance(source, Image.Image):
            return preprocess(source, self.contract)
        if not isinstance(source, np.ndarray):
            raise DataError(f"{name}: {type(source).__name__}, expected a path, bytes, an image or an array")
        right = source.dtype == np.uint8 and source.ndim == _RGB_RANK and source.shape[2] == _RGB_RANK
        if not right or 0 in source.shape:
            raise DataError(f"{name}: {source.dtype} {source.shape}, expected uint8 [height, width, 3] in RGB")
        if source.shape == self._unchanged:
            return source
        return preprocess(Image.fromarray(source), self.contract)


class NamedTextEncoder:
    """A `TextEncoder` whose messages name the text."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder

    def __call__(self, source: Text, name: str) -> Feeds:
        """Return tokens int64 [1, L] by input.

        Raises:
            DataError: the text is empty, or is a pair where the model takes single texts, or the reverse.
        """
        if not isinstance(source, str | tuple):
            raise DataError(f"{name}: a {type(source).__name__}, expected a text")
        try:
            return self.encoder(source)
        except DataError as error:
            raise DataError(error.message.replace("text 0", name, 1), hint=error.hint) from error


def one_row(arrays: Mapping[str, npt.NDArray[Any]], index: int) -> Feeds:
    """Return row `index` of arrays [n, ...] as a device takes it, [1, ...]: of tokens without the padding."""
    if MASK not in arrays:
        return {name: np.ascontiguousarray(values[index : index + 1]) for name, values in arrays.items()}
    length = int(arrays[MASK][index].sum())
    return {name: np.ascontiguousarray(values[index : index + 1, :length]) for name, values in arrays.items()}


def contract_from_json(values: Mapping[str, Json]) -> Contract:
    """Read an input contract of either kind.

    Raises:
        DataError: it is none.
    """
    return TextContract.from_json(values) if values.get("kind") == KIND else InputContract.from_json(values)


def open_encoder(contract: Contract, tokenizer: bytes | None) -> Encoder:
    """Return what encodes for `contract`.

    Args:
        contract: of a bundle.
        tokenizer: the tokenizer's file, for texts.

    Raises:
        IntegrityError: texts have no tokenizer, or another one.
        DeviceError: texts need the `tokenizers` package, which is not installed.
    """
    if isinstance(contract, InputContract):
        return ImageEncoder(contract)
    if tokenizer is None:
        raise IntegrityError("the model takes texts, and there is no tokenizer")
    return NamedTextEncoder(TextEncoder(contract, tokenizer))

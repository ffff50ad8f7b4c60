"""Golden vectors: real inputs with the outputs that the build saw, replayed on the device.

golden.npz holds an array [G, ...] for each input of the graph (`pixels` uint8 [G, H, W, 3], or `input_ids` and its
like, int64 [G, L], padded), `scores` float32 [G, K], `atol` float64, and `raw_0`, `raw_1`, ... uint8: the bytes of the
image files, or of the texts as JSON, that the first rows were made from, so that decoding, resizing or splitting into
tokens are replayed too.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeft.core.errors import IntegrityError
from edgeft.runtime.encode import Feeds, Source
from edgeft.runtime.preprocess import INPUT, read_image_bytes
from edgeft.runtime.session import Scores
from edgeft.runtime.text import TOKEN_INPUTS, Text

ROWS: Final = 16
RAW_ROWS: Final = 4
_RAW_BYTES: Final = 1 << 23
ATOL: Final[Mapping[str, float]] = {"fp32": 1e-4, "int8": 0.02}
"""Largest allowed difference of a score, by precision. fp32: sums in another order differ by about 1e-6 in a logit, and
100 times that leaves room for deep nets. int8: pair-safe sums are exact on every CPU, but rounding an activation to 8
bits may go the other way where float code before it rounds differently; one step moves a logit by about its scale."""
_DEFAULT_ATOL = 0.02


@dataclass(frozen=True, slots=True)
class Golden:
    """Golden vectors.

    Args:
        inputs: arrays [G, ...] by the graph's input.
        scores: float32 [G, K].
        raw: bytes of the first rows' files or texts.
        atol: largest allowed difference of a score.
    """

    inputs: Feeds
    scores: Scores
    raw: tuple[bytes, ...]
    atol: float

    def sources(self) -> list[Source]:
        """Return what `raw` holds: files' bytes, or texts.

        Raises:
            IntegrityError: a text is none.
        """
        if INPUT in self.inputs:
            return list(self.raw)
        return [text_from_bytes(data) for data in self.raw]


def tolerance(precision: str) -> float:
    """Return the largest allowed score difference of a replay at `precision`."""
    return ATOL.get(precision, _DEFAULT_ATOL)


def spread(n: int, most: int) -> list[int]:
    """Return at most `most` indices spread evenly over 0..n-1."""
    count = min(n, most)
    return [round(position * (n - 1) / max(1, count - 1)) for position in range(count)]


def read_raw(paths: Sequence[Path]) -> tuple[bytes, ...]:
    """Return the bytes of the first `RAW_ROWS` files, fewer where they are large, but at least one.

    Raises:
        DataError: a file cannot be read.
    """
    taken: list[bytes] = []
    for path in paths[:RAW_ROWS]:
        data = read_image_bytes(path)
        if taken and sum(map(len, taken)) + len(data) > _RAW_BYTES:
            break
        taken.append(data)
    return tuple(taken)


def text_to_bytes(text: Text) -> bytes:
    """Return a text, or two, as `raw` holds it."""
    return json.dumps(text, ensure_ascii=False).encode()


def text_from_bytes(data: bytes) -> Text:
    """Read what `text_to_bytes` gave.

    Raises:
        IntegrityError: it is no text.
    """
    try:
        found = json.loads(data)
    except ValueError as error:
        raise IntegrityError(f"golden vectors: a raw text cannot be read ({error})") from error
    if isinstance(found, str):
        return found
    if isinstance(found, list) and len(found) == 2 and all(isinstance(part, str) for part in found):  # noqa: PLR2004 - a pair
        return found[0], found[1]
    raise IntegrityError(f"golden vectors: a raw text is {type(found).__name__}")


def to_bytes(golden: Golden) -> bytes:
    """Return golden.npz; equal vectors give equal bytes."""
    arrays: dict[str, Any] = {**golden.inputs, "scores": golden.scores, "atol": np.float64(golden.atol)}
    arrays |= {f"raw_{index}": np.frombuffer(data, dtype=np.uint8) for index, data in enumerate(golden.raw)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def from_bytes(data: bytes, name: str) -> Golden:
    """Read golden.npz; `name` is what messages call it.

    Raises:
        IntegrityError: it is truncated, or does not hold what golden vectors are.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found = {key: arrays[key] for key in arrays.files}
        raw = tuple(found[f"raw_{index}"].tobytes() for index in range(sum(key.startswith("raw_") for key in found)))
        inputs = {key: found[key] for key in found if key in (INPUT, *TOKEN_INPUTS)}
        golden = Golden(inputs, found["scores"], raw, float(found["atol"]))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise IntegrityError(
            f"{name}: no golden vectors can be read ({error})", hint="build the bundle again"
        ) from error
    good = golden.scores.dtype == np.float32 and bool(inputs)
    for key, values in inputs.items():
        dtype = np.uint8 if key == INPUT else np.int64
        good = good and values.dtype == dtype and len(values) == len(golden.scores) >= max(1, len(raw))
    if not good:
        shapes = ", ".join(f"{key} {values.shape}" for key, values in inputs.items()) or "no inputs"
        raise IntegrityError(f"{name}: {shapes} and scores {golden.scores.shape} do not fit together")
    return golden

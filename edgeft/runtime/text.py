"""From text to a model's tokens: the one code that training, verification and the device share.

The tokenizer is the `tokenizer.json` that the model was pretrained with, applied by the `tokenizers` package; its own
truncation and padding are replaced by the contract's. A sequence is a text, or two that are judged together.
"""

import io
import operator
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DataError, DeviceError, IntegrityError, UsageError
from edgeft.core.stage import Json

Text: TypeAlias = str | tuple[str, str]
"""A text, or two that are judged together."""
Feeds: TypeAlias = dict[str, npt.NDArray[Any]]
"""Arrays [n, ...] by the graph's input."""

IDS, MASK, TYPES = TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Inputs of a text graph, int64 [N, L]; the last one only where the model wants it."""
KIND: Final = "text"
SHORTEST: Final = 8
"""Smallest `max_length`: special tokens and a few words."""


@dataclass(frozen=True, slots=True)
class TextContract:
    """How a text becomes the model's input.

    Args:
        max_length: tokens at most, special ones included; what is longer is cut at the end.
        prefix: text put before each, such as "query: ".
        pad_id: token that fills a batch's shorter rows; the mask leaves it out.
        pair: whether a second text belongs to each.
        types: whether the graph takes `token_type_ids`.
        tokenizer: sha256 of the tokenizer's file.

    Raises:
        UsageError: a value is out of range.
    """

    max_length: int
    prefix: str
    pad_id: int
    pair: bool
    types: bool
    tokenizer: str

    def __post_init__(self) -> None:
        if self.max_length < SHORTEST:
            raise UsageError(f"max_length {self.max_length}: at least {SHORTEST} tokens are needed")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The graph's inputs, each int64 [N, L]."""
        return (IDS, MASK, TYPES) if self.types else (IDS, MASK)

    def to_json(self) -> dict[str, Json]:
        """Return JSON values, as they stand in dataset.json and manifest.json."""
        return {"kind": KIND, **cast("dict[str, Json]", asdict(self))}

    @classmethod
    def from_json(cls, d: Mapping[str, Json]) -> "TextContract":
        """Read what `to_json` wrote.

        Raises:
            DataError: a key is missing, unknown, or holds the wrong type.
        """
        names = {"kind", *cls.__dataclass_fields__}
        if set(d) != names:
            raise DataError(f"text contract has keys {sorted(d)}, expected {sorted(names)}")
        values = cast("dict[str, Any]", d)
        try:
            return cls(
                max_length=operator.index(values["max_length"]),
                prefix=str(values["prefix"]),
                pad_id=operator.index(values["pad_id"]),
                pair=bool(values["pair"]),
                types=bool(values["types"]),
                tokenizer=str(values["tokenizer"]),
            )
        except (TypeError, ValueError) as error:
            raise DataError(f"text contract {dict(d)} cannot be read: {error}") from error


class Tokens(NamedTuple):
    """The tokens of one text: of equal length, at most `max_length`."""

    ids: Sequence[int]
    types: Sequence[int]


class TextEncoder:
    """A tokenizer under a contract.

    Args:
        contract: how texts become tokens.
        tokenizer: the tokenizer's file.

    Raises:
        IntegrityError: it is another tokenizer than the contract's, or none.
        DeviceError: the `tokenizers` package is not installed.
    """

    def __init__(self, contract: TextContract, tokenizer: bytes) -> None:
        if (found := sha256_bytes(tokenizer)) != contract.tokenizer:
            raise IntegrityError(
                f"the tokenizer has sha256 {found[:16]}..., the model was trained with {contract.tokenizer[:16]}...",
                hint="take the bundle whole from where it was built",
            )
        self.contract = contract
        self._tokenizer = read_tokenizer(tokenizer, "the tokenizer")
        self._tokenizer.enable_truncation(contract.max_length)

    def tokens(self, texts: Sequence[Text]) -> list[Tokens]:
        """Return the tokens of each text.

        Raises:
            DataError: a text is empty, or is a pair where the model takes single texts, or the reverse.
        """
        prefix = self.contract.prefix
        batch = []
        for index, text in enumerate(texts):
            parts = (text,) if isinstance(text, str) else text
            if len(parts) != 1 + self.contract.pair:
                raise DataError(f"text {index}: {len(parts)} texts, the model takes {1 + self.contract.pair}")
            if not all(part.strip() for part in parts):
                raise DataError(f"text {index} is empty")
            if any("\ud800" <= letter <= "\udfff" for part in parts for letter in part):
                raise DataError(f"text {index} is not UTF-8")
            batch.append(prefix + parts[0] if len(parts) == 1 else (prefix + parts[0], parts[1]))
        return [Tokens(found.ids, found.type_ids) for found in self._tokenizer.encode_batch_fast(batch)]

    def lengths(self, texts: Sequence[Text]) -> list[int]:
        """Return how many tokens each text has before it is cut, special ones included.

        Unlike the other calls, it is not for several threads at once: it switches the cutting off and on again.
        """
        prefix = self.contract.prefix
        batch = [prefix + text if isinstance(text, str) else (prefix + text[0], text[1]) for text in texts]
        self._tokenizer.no_truncation()
        try:
            return [len(found.ids) for found in self._tokenizer.encode_batch_fast(batch)]
        finally:
            self._tokenizer.enable_truncation(self.contract.max_length)

    def __call__(self, text: Text) -> Feeds:
        """Return one text as the graph takes it, int64 [1, L] by input.

        Raises:
            DataError: see `tokens`.
        """
        return padded(self.tokens([text]), self.contract)


def padded(sequences: Sequence[Tokens], contract: TextContract) -> Feeds:
    """Return sequences as the graph takes them, int64 [n, longest] by input."""
    longest = max(len(one.ids) for one in sequences)
    found = {name: np.zeros((len(sequences), longest), np.int64) for name in contract.inputs}
    found[IDS] += contract.pad_id
    for row, one in enumerate(sequences):
        found[IDS][row, : len(one.ids)] = one.ids
        found[MASK][row, : len(one.ids)] = 1
        if contract.types:
            found[TYPES][row, : len(one.types)] = one.types
    return found


class TokenTable:
    """Tokens of N texts on disk, read whole: ids int32 [T], types uint8 [T] and offsets int64 [N + 1] in one .npz.

    Args:
        contract: how the texts became tokens.
        ids: of all texts, one after the other.
        types: likewise.
        offsets: where each text begins, and the end.
    """

    def __init__(
        self,
        contract: TextContract,
        ids: npt.NDArray[np.int32],
        types: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.int64],
    ) -> None:
        self.contract, self._ids, self._types, self._offsets = contract, ids, types, offsets

    @classmethod
    def of(cls, tokens: Sequence[Tokens], contract: TextContract) -> "TokenTable":
        """Return the table of `tokens`."""
        lengths = [len(one.ids) for one in tokens]
        ids = np.concatenate([np.asarray(one.ids, np.int32) for one in tokens])
        types = np.concatenate([np.asarray(one.types, np.uint8) for one in tokens])
        return cls(contract, ids, types, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    @classmethod
    def open(cls, path: Path, contract: TextContract) -> "TokenTable":
        """Read what `to_bytes` gave.

        Raises:
            IntegrityError: the file is none.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(contract, arrays["ids"], arrays["types"], arrays["offsets"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise IntegrityError(f"{path}: no tokens can be read ({error})", hint="run the build again") from error

    def to_bytes(self) -> bytes:
        """Return the .npz."""
        buffer = io.BytesIO()
        np.savez(buffer, ids=self._ids, types=self._types, offsets=self._offsets)
        return buffer.getvalue()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each text, int64 [N]."""
        return np.diff(self._offsets)

    def feeds(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Feeds:
        """Return texts as the graph takes them, int64 [n, longest of these] by input."""
        spans = [slice(self._offsets[row], self._offsets[row + 1]) for row in rows]
        return padded([Tokens(self._ids[span].tolist(), self._types[span].tolist()) for span in spans], self.contract)


def read_tokenizer(data: bytes, name: str) -> Any:  # noqa: ANN401 - tokenizers ships no types
    """Return the tokenizer in `data` (tokenizer.json), without its own truncation and padding.

    Raises:
        IntegrityError: it is none.
        DeviceError: the `tokenizers` package is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise DeviceError(
            "texts need the tokenizers package, which is not installed", hint="pip install 'edgeft[text]'"
        ) from error
    try:
        found = Tokenizer.from_buffer(data)
    except Exception as error:  # tokenizers raises plain Exception
        raise IntegrityError(f"{name}: not a tokenizer.json ({error})") from error
    found.no_padding()
    found.no_truncation()
    return found

"""Reading the data stage's folder: what every later stage sees of the images or texts.

dataset.json     classes in their frozen order, the input contract, counts, audit, quarantine
rows.jsonl       one a line: index, path, class, label, group, split, sha256, slices; of texts also text and pair
pixels.npy       images: uint8 [N, H, W, 3], row i belongs to line i
tokens.npz       texts: their tokens, text i belongs to line i
tokenizer.json   texts: what made them
vocabulary.npy   texts, where the model's vocabulary was trimmed: int64 [K], the rows of its embeddings that are kept
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from edgeft.core.errors import DataError, IntegrityError, UsageError
from edgeft.data.config import DOMAIN
from edgeft.runtime.encode import Contract, contract_from_json
from edgeft.runtime.preprocess import INPUT, InputContract
from edgeft.runtime.text import Text, TextContract, TextEncoder, TokenTable

SCHEMA = 2
"""Version of the folder's layout."""
PIXELS, TOKENS, TOKENIZER, VOCABULARY = "pixels.npy", "tokens.npz", "tokenizer.json", "vocabulary.npy"
_DAMAGED = "delete the folder and run the build again"
Split: TypeAlias = Literal["train", "val", "test", "unlabelled"]


@dataclass(frozen=True, slots=True)
class Row:
    """One image or text.

    Args:
        index: its place.
        path: below the images' root; of a text what its row is called.
        class_name: its class.
        label: the class's number.
        group: what it stands together with.
        split: where it is.
        sha256: of the file, or of the text.
        slices: what it belongs to, by the name of the slice.
        text: of a text; None of an image.
        pair: the second text, where two are judged together.
    """

    index: int
    path: str
    class_name: str
    label: int
    group: str
    split: Split
    sha256: str
    slices: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    pair: str | None = None

    @property
    def source(self) -> Text:
        """The text, or the two that are judged together.

        Raises:
            IntegrityError: the row is an image's.
        """
        if self.text is None:
            raise IntegrityError(f"{self.path}: a row without a text")
        return self.text if self.pair is None else (self.text, self.pair)


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a dataset as the graph takes them, read when they are asked for.

    Args:
        data: the dataset.
        rows: int64 [n], which.
    """

    data: "Dataset"
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice) -> dict[str, npt.NDArray[Any]]:
        """Return arrays [m, ...] by the graph's input."""
        return self.data.feeds(self.rows[rows])


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset on disk.

    Args:
        folder: the data stage's folder.
        classes: the frozen class order, length K.
        ok_class: the class that means "nothing found", where the recipe names one.
        contract: how the pixels or tokens were made.
        rows: length N, in the order of `stored`.
        stored: pixels uint8 [N, H, W, 3], mapped from disk; or tokens of N texts.
        labels: int64 [N], 0..K-1.
        mix: share of an epoch's training rows by domain; None where all rows are taken once.
    """

    folder: Path
    classes: tuple[str, ...]
    ok_class: str | None
    contract: Contract
    rows: tuple[Row, ...]
    stored: npt.NDArray[np.uint8] | TokenTable
    labels: npt.NDArray[np.int64]
    mix: Mapping[str, float] | None = None

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Open the data stage's `folder`; pixels stay on disk until they are read.

        Raises:
            DataError: the folder is none of the data stage's, or of another version.
            IntegrityError: its files do not fit together.
        """
        try:
            head = json.loads((folder / "dataset.json").read_bytes())
            lines = (folder / "rows.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        except FileNotFoundError as error:
            raise DataError(f"{error.filename}: missing, expected a folder that the data stage wrote") from error
        if head.get("schema") != SCHEMA:
            raise DataError(f"{folder}/dataset.json: schema {head.get('schema')}, this version reads {SCHEMA}")
        rows = tuple(_row(json.loads(line)) for line in lines)
        contract = contract_from_json(head["input"])
        if len(rows) != head["n"]:
            raise IntegrityError(
                f"{folder}: dataset.json says {head['n']} rows, rows.jsonl has {len(rows)}", hint=_DAMAGED
            )
        stored = _stored(folder, contract, len(rows))
        labels = np.array([row.label for row in rows], dtype=np.int64)
        return cls(folder, tuple(head["classes"]), head["ok_class"], contract, rows, stored, labels, head.get("mix"))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """Images, uint8 [N, H, W, 3], mapped from disk.

        Raises:
            UsageError: these are texts.
        """
        if isinstance(self.stored, TokenTable):
            raise UsageError(f"{self.folder}: texts, and images are needed here")
        return self.stored

    @property
    def tokens(self) -> TokenTable:
        """Tokens of N texts.

        Raises:
            UsageError: these are images.
        """
        if not isinstance(self.stored, TokenTable):
            raise UsageError(f"{self.folder}: images, and texts are needed here")
        return self.stored

    @property
    def input(self) -> InputContract:
        """How the pixels were made.

        Raises:
            UsageError: these are texts.
        """
        if not isinstance(self.contract, InputContract):
            raise UsageError(f"{self.folder}: texts, and images are needed here")
        return self.contract

    @property
    def is_text(self) -> bool:
        """Whether its rows are texts."""
        return isinstance(self.stored, TokenTable)

    @property
    def vocabulary(self) -> npt.NDArray[np.int64] | None:
        """Rows of the pretrained embeddings that are kept, int64 [K], ascending; None keeps all."""
        path = self.folder / VOCABULARY
        return np.load(path, allow_pickle=False) if path.is_file() else None

    def domains(self) -> npt.NDArray[np.int64]:
        """Return the domain of each row as its place in `mix`, int64 [N]; -1 where it has none."""
        places = {name: place for place, name in enumerate(self.mix or {})}
        return np.array([places.get(row.slices.get(DOMAIN, ""), -1) for row in self.rows], dtype=np.int64)

    def encoder(self) -> TextEncoder:
        """Return the tokenizer under its contract.

        Raises:
            UsageError: these are images.
            IntegrityError: it is another tokenizer than the contract's.
        """
        if not isinstance(self.contract, TextContract):
            raise UsageError(f"{self.folder}: images, and texts are needed here")
        return TextEncoder(self.contract, (self.folder / TOKENIZER).read_bytes())

    def feeds(self, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Return rows as the graph takes them, [n, ...] by input; texts are padded to the longest of them."""
        if isinstance(self.stored, TokenTable):
            return self.stored.feeds(rows)
        return {INPUT: np.ascontiguousarray(self.stored[rows])}

    def part(self, rows: npt.NDArray[np.int64]) -> Part:
        """Return rows as the graph takes them, a batch at a time."""
        return Part(self, rows)

    @property
    def groups(self) -> tuple[str, ...]:
        """Group of each image, length N."""
        return tuple(row.group for row in self.rows)

    @property
    def positive_index(self) -> int | None:
        """The label of the class that is not `ok_class`; None unless there are two classes and one is named ok."""
        if self.ok_class is None or len(self.classes) != 2:  # noqa: PLR2004 - a positive class needs exactly two
            return None
        return 1 - self.classes.index(self.ok_class)

    def indices(self, split: Split) -> npt.NDArray[np.int64]:
        """Return the rows of `split` in ascending order, int64 [n]."""
        return np.array([row.index for row in self.rows if row.split == split], dtype=np.int64)

    def studied(self) -> npt.NDArray[np.int64]:
        """Return the rows that are learned from, with labels and without, in ascending order, int64 [n]."""
        return np.union1d(self.indices("train"), self.indices("unlabelled"))


def _stored(folder: Path, contract: Contract, count: int) -> npt.NDArray[np.uint8] | TokenTable:
    if isinstance(contract, TextContract):
        tokens = TokenTable.open(folder / TOKENS, contract)
        if len(tokens) != count:
            raise IntegrityError(f"{folder}: {TOKENS} holds {len(tokens)} texts, rows.jsonl {count}", hint=_DAMAGED)
        return tokens
    try:
        pixels: npt.NDArray[np.uint8] = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: missing, expected a folder that the data stage wrote") from error
    shape = (count, contract.height, contract.width, 3)
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise IntegrityError(
            f"{folder}: {PIXELS} is {pixels.dtype} {pixels.shape}, expected uint8 {shape}", hint=_DAMAGED
        )
    return pixels


def _row(values: dict[str, object]) -> Row:
    match values:
        case {
            "index": int(index),
            "path": str(path),
            "class": str(class_name),
            "label": int(label),
            "group": str(group),
            "split": ("train" | "val" | "test" | "unlabelled") as split,
            "sha256": str(sha256),
            "slices": dict(slices),
        }:
            text, pair = (cast("str | None", values.get(key)) for key in ("text", "pair"))
            return Row(index, path, class_name, label, group, split, sha256, slices, text, pair)
        case _:
            raise IntegrityError(f"rows.jsonl: cannot read the row {values}")

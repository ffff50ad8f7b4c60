"""Toy tasks of the method exam: images whose class is their colour, texts whose class is a word in them.

A method that trains anything at all must tell the classes apart. Networks are tiny and have random weights, so the exam
takes seconds and needs no download.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from edgeft.core.digest import sha256_bytes
from edgeft.core.stage import Json
from edgeft.finetune.config import Family
from edgeft.models.config import InputOverride, ModelConfig, TextOptions
from edgeft.runtime.text import TextContract, TextEncoder, TokenTable

SIDE: Final = 32
PER_CLASS: Final = 20
CLASSES: Final = ("blue", "green", "red")
_COLOURS: Final = {"blue": (60, 70, 200), "green": (60, 200, 70), "red": (200, 60, 70)}
_SPLITS: Final = ("train",) * 12 + ("val",) * 4 + ("test",) * 4
_FILLER: Final = ("the", "sky", "and", "a", "house", "under", "old", "trees", "by", "water")
_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_LONGEST: Final = 16


class Toy(Protocol):
    """A task that a method can be tried on in seconds."""

    @property
    def family(self) -> Family:
        """Of its network."""
        ...

    @property
    def suffix(self) -> str:
        """What the exam's questions on it are called beside their name."""
        ...

    @property
    def augment(self) -> Mapping[str, Json]:
        """Settings that make a run depend on its seed in every way the task knows."""
        ...

    @property
    def epochs(self) -> int:
        """Enough of them to learn it."""
        ...

    @property
    def row(self) -> str:
        """What every row's name holds."""
        ...

    def write(self, folder: Path, *, other_test_split: bool = False) -> Path:
        """Write a data stage's folder of 60 rows in 3 classes; return it.

        Args:
            folder: where to; made if need be.
            other_test_split: give the test rows other inputs and labels; train and val stay as they are.
        """
        ...

    def model(self, folder: Path) -> tuple[ModelConfig, dict[str, Path]]:
        """Return the model's config, and what a run reads beside the data; files go below `folder`."""
        ...


@dataclass(frozen=True, slots=True)
class Images:
    """Coloured, noisy images and a tiny network: a ResNet, or a vision transformer."""

    family: Family = "convolutions"
    base: str = "timm/test_resnet"
    side: int = SIDE
    suffix: str = ""
    epochs: int = 12
    row: str = ".png"

    @property
    def augment(self) -> Mapping[str, Json]:
        """Flips, turns and a little light, drawn anew in each epoch."""
        return {"augment": "inspection"}

    def write(self, folder: Path, *, other_test_split: bool = False) -> Path:
        """Write the images; see `Toy.write`."""
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        images = []
        rows = _rows("{name}/{index}.png", other_test_split=other_test_split)
        for row, name in zip(rows, _names(), strict=True):
            noise = rng.normal(0, 25, (self.side, self.side, 3))
            other = other_test_split and row["split"] == "test"
            images.append(np.clip(np.asarray(_COLOURS[name]) * (not other) + noise, 0, 255).astype(np.uint8))
        contract: dict[str, Json] = {"height": self.side, "width": self.side, "resize": "squash", "resize_to": None}
        contract |= {"filter": "bilinear", "mean": [127.5] * 3, "std": [127.5] * 3}
        _write(folder, "image_classification", contract, rows)
        np.save(folder / "pixels.npy", np.stack(images))
        return folder

    def model(self, folder: Path) -> tuple[ModelConfig, dict[str, Path]]:
        """Return the network's config; see `Toy.model`."""
        del folder
        override = InputOverride(height=self.side, width=self.side, resize="squash")
        return ModelConfig(base=self.base, input=override), {}


@dataclass(frozen=True, slots=True)
class Texts:
    """Sentences with a colour in them and a tiny BERT."""

    family: Family = "texts"
    suffix: str = ", on texts"
    epochs: int = 120
    row: str = "toy line"

    @property
    def augment(self) -> Mapping[str, Json]:
        """Texts are not augmented: order, head and dropout depend on the seed."""
        return {}

    def write(self, folder: Path, *, other_test_split: bool = False) -> Path:
        """Write the texts and their tokens; see `Toy.write`."""
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        rows = _rows("toy line {index}", other_test_split=other_test_split)
        for row, name in zip(rows, _names(), strict=True):
            words = [_FILLER[i] for i in rng.integers(0, len(_FILLER), rng.integers(1, 5))]
            other = other_test_split and row["split"] == "test"
            words.insert(int(rng.integers(0, len(words) + 1)), "water" if other else name)
            row |= {"text": " ".join(words), "pair": None}
        tokenizer = word_tokenizer((*CLASSES, *_FILLER))
        contract = TextContract(_LONGEST, "", 0, pair=False, types=False, tokenizer=sha256_bytes(tokenizer))
        tokens = TextEncoder(contract, tokenizer).tokens([str(row["text"]) for row in rows])
        _write(folder, "text_classification", contract.to_json(), rows)
        (folder / "tokens.npz").write_bytes(TokenTable.of(tokens, contract).to_bytes())
        (folder / "tokenizer.json").write_bytes(tokenizer)
        return folder

    def model(self, folder: Path) -> tuple[ModelConfig, dict[str, Path]]:
        """Write a tiny BERT and return its config; see `Toy.model`."""
        place = folder / "encoder"
        if not place.is_dir():
            write_encoder(place, len(_SPECIAL) + len(CLASSES) + len(_FILLER))
        text = TextOptions(max_length=_LONGEST)
        return ModelConfig(base="transformers", weights=str(place), text=text), {"weights": place}


CONVOLUTIONS, PATCHES, TEXTS = Images(), Images("patches", "timm/test_vit", 160), Texts()


def word_tokenizer(words: tuple[str, ...]) -> bytes:
    """Return a tokenizer.json that knows `words`, and puts [CLS] and [SEP] around them, BERT's way."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate((*_SPECIAL, *words))}
    found = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token, not a password
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    text: str = found.to_str()
    return text.encode()


def write_encoder(folder: Path, vocabulary: int, **changes: Any) -> None:  # noqa: ANN401 - BertConfig's own values
    """Write a tiny BERT with fixed random weights, as save_pretrained does."""
    import torch
    from transformers import BertConfig, BertModel

    small: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    small |= {"initializer_range": 0.2}  # wide enough for random features to tell words apart
    config = BertConfig(vocab_size=vocabulary, max_position_embeddings=32, **{**small, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = BertModel(config, add_pooling_layer=False)
        for name, parameter in module.named_parameters():
            if name.endswith(".bias"):  # zero at birth, and a graph without them is another one
                torch.nn.init.normal_(parameter, std=0.1)
        module.save_pretrained(folder)


def _names() -> list[str]:
    return [name for name in CLASSES for _ in _SPLITS]


def _rows(path: str, *, other_test_split: bool) -> list[dict[str, Json]]:
    rows: list[dict[str, Json]] = []
    for label, name in enumerate(CLASSES):
        for split in _SPLITS:
            shown = (label + 1) % len(CLASSES) if other_test_split and split == "test" else label
            index = len(rows)
            rows.append(
                {
                    "index": index,
                    "path": path.format(name=name, index=index),
                    "class": CLASSES[shown],
                    "label": shown,
                    "group": str(index),
                    "split": split,
                    "sha256": f"{index:064x}",
                    "slices": {},
                }
            )
    return rows


def _write(folder: Path, task: str, contract: dict[str, Json], rows: list[dict[str, Json]]) -> None:
    head = {"schema": 2, "task": task, "classes": list(CLASSES), "ok_class": None, "input": contract}
    head |= {"counts": {}, "n": len(rows), "audit": [], "quarantined": []}
    (folder / "dataset.json").write_text(json.dumps(head))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

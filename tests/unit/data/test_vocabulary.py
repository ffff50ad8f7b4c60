"""A trimmed vocabulary: training texts keep their tokens, what is new can be spelled, and the model does the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DataError, UsageError
from edgeft.core.stage import Context
from edgeft.data.dataset import Dataset
from edgeft.data.text import vocabulary
from edgeft.data.text.config import TextDataConfig
from edgeft.data.text.stage import run
from edgeft.models.config import ModelConfig
from edgeft.models.sources import create
from edgeft.models.text import TextClassifier
from edgeft.runtime.text import TextContract, TextEncoder
from edgeft.testing.toys import write_encoder

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
LETTERS = "abcdefgh"
PIECES = ("ab", "cd", "abc", "▁a", "▁ab", "▁cab", "dead", "▁bead", "gé", "好", "坏", "好坏", "я", "да", "▁")


def unigram() -> bytes:
    """A unigram tokenizer as XLM-R has one: the padding is token 1, later tokens are rarer."""
    pieces = [*SPECIAL, *PIECES, *LETTERS, "é"]
    scores = [0.0] * len(SPECIAL) + [-2.0 - 0.3 * i for i in range(len(pieces) - len(SPECIAL))]
    found = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=3))
    found.normalizer = normalizers.NFKC()
    found.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    found.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    found.add_special_tokens([*SPECIAL, "<mask>"])
    return found.to_str().encode()


def word_piece() -> bytes:
    """A word-piece tokenizer as BERT has one: unused tokens stand between the padding and the others."""
    pieces = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "ab", "##ab", "abc", "##c", "cab"]
    pieces += [*LETTERS, *(f"##{letter}" for letter in LETTERS if f"##{letter}" != "##c")]
    found = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))  # noqa: S106 - a token, not a password
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.post_processor = processors.BertProcessing(("[SEP]", 5), ("[CLS]", 4))
    found.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return found.to_str().encode()


def contract(tokenizer: bytes, pad: int, **changes: Any) -> TextContract:  # noqa: ANN401 - fields
    values: dict[str, Any] = {"max_length": 64, "prefix": "", "pad_id": pad, "pair": False, "types": False}
    return TextContract(**{**values, **changes}, tokenizer=sha256_bytes(tokenizer))


TOKENIZERS = {"unigram": (unigram(), 1), "word piece": (word_piece(), 0)}
texts = st.lists(st.text(LETTERS + " é", min_size=1).filter(str.strip), min_size=1, max_size=6)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(train=texts, others=texts, margin=st.floats(0, 2))
@settings(deadline=None, max_examples=60)
def test_training_texts_keep_their_tokens(kind: str, train: list[str], others: list[str], margin: float) -> None:
    tokenizer, pad = TOKENIZERS[kind]
    whole = TextEncoder(contract(tokenizer, pad), tokenizer)
    found = vocabulary.trim(tokenizer, whole.contract, train, others, margin)
    back = [found.kept[list(each.ids)].tolist() for each in found.encoder.tokens(train)]
    assert back == [list(each.ids) for each in whole.tokens(train)]
    assert found.kept[found.encoder.contract.pad_id] == pad
    assert len(np.unique(found.kept)) == len(found.kept)
    assert Tokenizer.from_str(found.tokenizer.decode()).get_vocab_size() == len(found.kept)
    same = sum(
        found.kept[list(new.ids)].tolist() == list(old.ids)
        for new, old in zip(found.encoder.tokens(others), whole.tokens(others), strict=True)
    )
    assert found.finding.numbers["others_same"] == same


def test_new_words_are_spelled_and_other_scripts_are_dropped() -> None:
    tokenizer, pad = TOKENIZERS["unigram"]
    whole = contract(tokenizer, pad)
    found = vocabulary.trim(tokenizer, whole, ["ab cab", "好"], ["dead", "坏", "да"], 0.0)
    names = Tokenizer.from_str(found.tokenizer.decode()).get_vocab()
    assert set(LETTERS) | {"é", "好", "坏"} <= set(names)  # in the scripts of the training texts
    assert not {"да", "я", "好坏", "dead"} & set(names)
    unknown = names["<unk>"]
    assert [unknown in each.ids for each in found.encoder.tokens(["dead", "坏", "да"])] == [False, False, True]
    assert found.finding.numbers["others_same"] == 1  # 坏 alone: the others were one token
    assert found.finding.numbers["unknown_share"] > found.finding.numbers["unknown_share_before"]


def test_a_margin_keeps_the_likeliest_that_can_occur() -> None:
    tokenizer, pad = TOKENIZERS["unigram"]
    kept = [
        set(
            Tokenizer.from_str(
                vocabulary.trim(tokenizer, contract(tokenizer, pad), ["abcdefgh"], ["a"], margin).tokenizer.decode()
            ).get_vocab()
        )
        for margin in (0.0, 0.2, 100.0)
    ]
    assert kept[0] < kept[1] < kept[2]
    assert "ab" in kept[1] - kept[0]
    assert not {"да", "好坏"} & kept[2]  # made of characters that no kept token has


def test_pairs_and_prefixes_are_encoded_as_before() -> None:
    tokenizer, pad = TOKENIZERS["unigram"]
    whole = contract(tokenizer, pad, pair=True, prefix="gé ")
    found = vocabulary.trim(tokenizer, whole, [("ab", "cab")], [("a", "b")], 0.0)
    old, new = (each.tokens([("ab", "cab")])[0].ids for each in (TextEncoder(whole, tokenizer), found.encoder))
    assert found.kept[list(new)].tolist() == list(old)


def test_bpe_is_refused() -> None:
    found = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer = found.to_str().encode()
    with pytest.raises(UsageError, match=r"unigram or word-piece tokenizer, this one is BPE") as caught:
        vocabulary.trim(tokenizer, contract(tokenizer, 0), ["ab"], ["a"], 0.0)
    assert caught.value.hint == "model.text.vocabulary: all"


@pytest.fixture
def stage(tmp_path: Path) -> Dataset:
    ends = [letter + other for letter in LETTERS for other in LETTERS]
    rows = [f"{word} {end},{label}" for word, label in (("ab", "x"), ("cab", "y")) for end in ends]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZERS["unigram"][0])
    inputs = {"source": tmp_path / "texts.csv", "tokenizer": tmp_path / "tokenizer.json"}
    described = {"max_length": 16, "prefix": "", "pad_id": 1, "has_types": False, "vocabulary": "used"}
    config = TextDataConfig(source="texts.csv", input=described)  # type: ignore[arg-type] # pydantic reads it
    (tmp_path / "out").mkdir()
    return Dataset.open(run(Context(tmp_path / "out", tmp_path, seed=0, threads=1), inputs, config).folder)


def test_the_stage_says_what_was_kept_and_the_model_does_the_same(stage: Dataset, tmp_path: Path) -> None:
    kept = stage.vocabulary
    assert kept is not None
    audit = json.loads((stage.folder / "dataset.json").read_text())["audit"]
    finding = next(item for item in audit if item["check"] == "vocabulary")
    assert finding["numbers"]["kept"] == len(kept) < finding["numbers"]["of"]
    rows = len(SPECIAL) + len(PIECES) + len(LETTERS) + 2
    write_encoder(tmp_path / "encoder", rows, pad_token_id=1)
    config = ModelConfig(base="transformers", weights=str(tmp_path / "encoder"))
    whole, small = (create(config, tmp_path / "encoder", stage.classes, 0, each).eval() for each in (None, kept))
    tokens = {name: torch.from_numpy(values) for name, values in stage.feeds(stage.indices("test")).items()}
    before = {**tokens, "input_ids": torch.from_numpy(kept)[tokens["input_ids"]]}
    with torch.inference_mode():
        assert torch.equal(small(tokens), whole(before))
    assert isinstance(small, TextClassifier)
    assert small.encoder.config.vocab_size == len(kept)
    with pytest.raises(DataError, match=r"the tokenizer has a token 99, the encoder .* embeddings"):
        create(config, tmp_path / "encoder", stage.classes, 0, np.array([0, 1, 99]))
    with pytest.raises(DataError, match="the padding token 1 would become 0"):
        create(config, tmp_path / "encoder", stage.classes, 0, np.arange(1, rows))

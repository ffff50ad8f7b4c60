"""Back-translation through a Marian model: tiny, with random weights, so that it runs; what it says is noise."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeft import catalog
from edgeft.core.digest import sha256_tree
from edgeft.core.errors import DataError
from edgeft.core.events import Event, Progress
from edgeft.data.text.translate import back_translations, translate
from edgeft.testing import method_cases
from edgeft.testing.toys import Texts, word_tokenizer

WORDS = ("blue", "green", "red", "the", "sky", "and", "a", "house")


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer
    from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("marian")
    tokenizer = Tokenizer.from_str(word_tokenizer(WORDS).decode())
    names: dict[str, Any] = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    size = tokenizer.get_vocab_size()
    config = MarianConfig(
        vocab_size=size, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64,
        pad_token_id=0, eos_token_id=3, decoder_start_token_id=0, max_length=8, forced_eos_token_id=3,
    )  # fmt: skip
    torch.manual_seed(0)
    MarianMTModel(config).save_pretrained(folder)
    return folder


def test_it_is_what_the_model_generates(marian: Path) -> None:
    from transformers import MarianMTModel, PreTrainedTokenizerFast

    texts = ["the blue sky", "a red house and the green sky", "red"]
    tokenizer, model = PreTrainedTokenizerFast.from_pretrained(marian), MarianMTModel.from_pretrained(marian).eval()
    expected = []
    for text in texts:
        tokens = tokenizer([text], return_tensors="pt")
        written = model.generate(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], num_beams=1, max_new_tokens=63
        )
        expected += tokenizer.batch_decode(written, skip_special_tokens=True)
    assert translate(texts, marian) == expected
    seen: list[tuple[int, int]] = []
    found = back_translations(texts, marian, marian, lambda done, total: seen.append((done, total)))
    assert len(found) == 3
    assert all(text.strip() for text in found)
    assert seen[-1] == (6, 6)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no translation model"):
        translate(["a"], tmp_path)


def test_training_texts_are_said_otherwise_once(marian: Path, tmp_path: Path) -> None:
    toy, method = Texts(), catalog.find("finetune", "full")
    rows = toy.write(tmp_path / "data")
    settings: dict[str, Any] = {"augment_text": {"back_translate": 1.0, "translators": [str(marian), str(marian)]}}
    events: list[Event] = []
    plain = sha256_tree(method_cases.run(method, toy, tmp_path / "plain", rows, {}).folder)
    first = sha256_tree(method_cases.run(method, toy, tmp_path / "first", rows, settings, emit=events.append).folder)
    assert first != plain
    told = [event for event in events if isinstance(event, Progress) and event.task == "back-translation"]
    assert (told[-1].done, told[-1].total) == (72, 72)  # 36 training texts, there and back
    kept = json.loads((tmp_path / "first" / "workspace" / "translated.json").read_text())
    assert len(kept["texts"]) == 36
    again: list[Event] = []
    assert (
        sha256_tree(method_cases.run(method, toy, tmp_path / "first", rows, settings, emit=again.append).folder)
        == first
    )
    assert not any(isinstance(event, Progress) and event.task == "back-translation" for event in again)

"""Text classifiers: encoders that are a chain of layers, those that are not, and their checkpoints."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from edgeft.core.errors import DataError, UsageError
from edgeft.data.dataset import Dataset
from edgeft.models import checkpoint, text
from edgeft.models.config import ModelConfig, TextOptions
from edgeft.models.predict import logits
from edgeft.models.stages import chain, depth_groups
from edgeft.models.text_source import describe
from edgeft.testing.toys import write_encoder

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CHAINED = {
    "bert": transformers.BertConfig(**SMALL, intermediate_size=40, max_position_embeddings=40),
    "roberta": transformers.RobertaConfig(**SMALL, intermediate_size=40, max_position_embeddings=40, pad_token_id=1),
    "distilbert": transformers.DistilBertConfig(vocab_size=60, dim=32, n_layers=2, n_heads=2, hidden_dim=40),
    "electra": transformers.ElectraConfig(**SMALL, embedding_size=32, intermediate_size=40),
}
WHOLE = {
    "electra with a projection": transformers.ElectraConfig(**SMALL, embedding_size=16, intermediate_size=40),
    "mpnet": transformers.MPNetConfig(**SMALL, intermediate_size=40),
}


def saved(config: Any, folder: Path) -> Path:  # noqa: ANN401 - any of transformers' configurations
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    mask[2, 7:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", CHAINED)
def test_a_chain_of_layers_is_the_encoder_itself(name: str, tmp_path: Path) -> None:
    folder = saved(CHAINED[name], tmp_path)
    module = text.from_folder(folder, 3, "mean", 0.0).eval()
    assert [group for group, _ in module.groups()] == ["embeddings", "layer.0", "layer.1", "head"]
    encoder = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokens = batch()
    with torch.no_grad():
        hidden = encoder(**tokens).last_hidden_state
        mask = tokens["attention_mask"][:, :, None]
        expected = module.classifier((hidden * mask).sum(1) / mask.sum(1))
        torch.testing.assert_close(module(tokens), expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(chain(depth_groups(module))(tokens), module(tokens))


@pytest.mark.parametrize("name", WHOLE)
def test_any_other_encoder_is_run_whole(name: str, tmp_path: Path) -> None:
    folder = saved(WHOLE[name], tmp_path)
    module = text.from_folder(folder, 2, "first", 0.0).eval()
    assert [group for group, _ in module.groups()] == ["encoder", "head"]
    encoder = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = module.classifier(encoder(**batch()).last_hidden_state[:, 0])
        torch.testing.assert_close(module(batch()), expected, atol=1e-5, rtol=1e-4)


def test_padding_changes_nothing(tmp_path: Path) -> None:
    write_encoder(tmp_path, 60)
    module = text.from_folder(tmp_path, 2, "mean", 0.0).eval()
    tokens = batch()
    with torch.no_grad():
        whole = module(tokens)
        for row, length in enumerate((9, 4, 7)):
            alone = module({name: values[row : row + 1, :length] for name, values in tokens.items()})
            torch.testing.assert_close(alone[0], whole[row], atol=1e-5, rtol=1e-4)


def test_two_attentions_agree(tmp_path: Path) -> None:
    write_encoder(tmp_path, 60)
    module = text.from_folder(tmp_path, 2, "mean", 0.0).eval()
    with torch.no_grad():
        fused = module(batch())
        text.set_attention_(module, "eager")
        torch.testing.assert_close(module(batch()), fused, atol=1e-5, rtol=1e-4)


def test_a_checkpoint_needs_nothing_but_its_folder(toy_texts: Path, toy_encoder: Path, tmp_path: Path) -> None:
    data = Dataset.open(toy_texts)
    module = text.from_folder(toy_encoder, 3, "first", 0.1)
    meta = checkpoint.CheckpointMeta(
        "transformers", data.classes, data.contract, 0.1, text.config_json(module), "first"
    )
    checkpoint.save(tmp_path, module, meta)
    again, read = checkpoint.load(tmp_path)
    assert read == meta
    assert not again.training
    rows = data.part(np.arange(5))
    tokens = {name: torch.from_numpy(values) for name, values in rows[:].items()}
    with torch.no_grad():
        expected = module.eval()(tokens).numpy()
    np.testing.assert_allclose(logits(tmp_path, rows, 1), expected, atol=1e-6)
    assert str(toy_encoder) not in (tmp_path / "model.json").read_text()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_encoder_stored_in_half_precision_comes_back_as_it_was_trained(tmp_path: Path, dtype: torch.dtype) -> None:
    encoder = transformers.AutoModel.from_config(CHAINED["bert"]).to(dtype)
    encoder.config.dtype = dtype
    encoder.save_pretrained(tmp_path)
    first = text.from_folder(tmp_path, 2, "mean", 0.0)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1e-4 * torch.randn_like(parameter))  # what half precision would lose
    again = text.from_config(text.config_json(first), 2, "mean", 0.0)
    again.load_state_dict(first.state_dict())
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(tensor, first.state_dict()[name], rtol=0, atol=0)


def test_what_is_no_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be loaded as an encoder"):
        text.from_folder(tmp_path, 2, "mean", 0.0)
    write_encoder(tmp_path, 60)
    (tmp_path / "model.safetensors").write_bytes(b"none")
    with pytest.raises(DataError, match="cannot be loaded as an encoder"):
        text.from_folder(tmp_path, 2, "mean", 0.0)


def test_a_missing_tensor_is_never_random(tmp_path: Path) -> None:
    write_encoder(tmp_path, 60)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"lacks 1 tensors of its own bert, first 'encoder\.layer\.1\.output"):
        text.from_folder(tmp_path, 2, "mean", 0.0)


def test_the_folder_says_what_the_input_is(tmp_path: Path) -> None:
    write_encoder(tmp_path, 60)
    (tmp_path / "tokenizer.json").write_text("{}")
    options = TextOptions(max_length=32, prefix="query: ")
    config = ModelConfig(base="transformers", weights=str(tmp_path), text=options)
    expected = {"max_length": 32, "prefix": "query: ", "pad_id": 0, "has_types": True}
    expected |= {"vocabulary": "all", "vocabulary_margin": 0.25}
    assert describe(config, tmp_path) == expected
    long = config.model_copy(update={"text": TextOptions(max_length=33)})
    with pytest.raises(UsageError, match=r"model\.text\.max_length: 33, the model in .* has 32 positions"):
        describe(long, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    roberta = {**values, "model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 34}
    (tmp_path / "config.json").write_text(json.dumps(roberta))
    assert describe(config, tmp_path)["pad_id"] == 1
    with pytest.raises(UsageError, match="has 32 positions"):
        describe(long, tmp_path)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), r"holds no tokenizer\.json"),
        (lambda folder: (folder / "config.json").unlink(), r"holds no config\.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "names no model_type"),
    ],
)
def test_a_folder_that_lacks_something_is_named(tmp_path: Path, damage: Any, why: str) -> None:  # noqa: ANN401 - a case
    write_encoder(tmp_path, 60)
    (tmp_path / "tokenizer.json").write_text("{}")
    damage(tmp_path)
    with pytest.raises(DataError, match=why):
        describe(ModelConfig(base="transformers", weights=str(tmp_path)), tmp_path)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"base": "transformers"}, "needs weights"),
        ({"base": "transformers", "weights": "hub"}, "needs the model's name"),
        ({"base": "transformers/a/b/c", "weights": "x"}, "pattern"),
        ({"base": "timm"}, "pattern"),
        ({"base": "transformers", "weights": "x", "text": {"max_length": 4}}, "greater than or equal to 8"),
    ],
)
def test_a_model_block_that_cannot_work_is_refused(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ModelConfig.model_validate(values)
    assert ModelConfig(base="transformers/org/name", weights="hub").architecture == "org/name"

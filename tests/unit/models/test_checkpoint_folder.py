"""Checkpoint folders: safetensors and JSON, equal bytes for equal states, refused when damaged."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeft.core.digest import sha256_tree
from edgeft.core.errors import DataError
from edgeft.models.checkpoint import CheckpointMeta, load, save
from edgeft.models.config import ModelConfig
from edgeft.models.predict import logits
from edgeft.models.sources import create
from edgeft.quantize.rows import ArrayRows
from edgeft.runtime.preprocess import InputContract

CONTRACT = InputContract(32, 32, "squash", None, "bicubic", (127.0,) * 3, (128.0,) * 3)
META = CheckpointMeta("timm/test_resnet", ("good", "bad"), CONTRACT, 0.2)


def module(seed: int = 0) -> nn.Module:
    return create(ModelConfig(base="timm/test_resnet", dropout=0.2), None, META.classes, seed).eval()


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    original = module()
    save(tmp_path, original, META)
    loaded, meta = load(tmp_path)
    assert meta == META
    assert not loaded.training
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(pixels), original(pixels))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_layers_with_versions_of_their_own_are_loaded(tmp_path: Path) -> None:
    model = ModelConfig(base="torchvision/mnasnet0_5")
    original = create(model, None, META.classes, 0).eval()
    save(tmp_path, original, CheckpointMeta(model.base, META.classes, CONTRACT, 0.0))
    loaded, _ = load(tmp_path)
    with torch.inference_mode():
        assert torch.equal(loaded(torch.ones(1, 3, 64, 64)), original(torch.ones(1, 3, 64, 64)))


def test_equal_states_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(tmp_path / name, module(), META)
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")


def test_logits_follow_the_written_formula(tmp_path: Path) -> None:
    original = module()
    save(tmp_path, original, META)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    normalised = (torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32)) - 127) / 128
    with torch.inference_mode():
        expected = original(normalised).numpy()
    before = torch.get_num_threads()
    found = logits(tmp_path, ArrayRows("pixels", pixels), threads=1, batch=2)
    assert torch.get_num_threads() == before
    # float32 sums in another order: batches of 2 instead of 5
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.json", b"{"),
        ("model.json", b'{"schema": 1}'),
        ("model.safetensors", b""),
        ("model.safetensors", b"x" * 99),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, file: str, content: bytes) -> None:
    save(tmp_path, module(), META)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=file):
        load(tmp_path)


def test_tensors_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save(tmp_path, module(), META)
    values = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**values, "architecture": "timm/test_efficientnet"}))
    with pytest.raises(DataError, match="test_efficientnet"):
        load(tmp_path)

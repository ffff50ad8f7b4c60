"""onnxruntime and torch compute the same frozen layers."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgeft.finetune.engines import ONNXRUNTIME_PAYS_FROM, choose, multiply_adds, onnxruntime_engine, torch_engine
from edgeft.models.config import ModelConfig
from edgeft.models.sources import create
from edgeft.models.stages import chain, depth_groups
from edgeft.runtime.preprocess import InputContract

CONTRACT = InputContract(48, 32, "squash", None, "bicubic", (120.0, 127.0, 130.0), (50.0, 60.0, 70.0))


def test_engines_agree(tmp_path: Path) -> None:
    module = create(ModelConfig(base="timm/test_efficientnet"), None, ("a", "b"), seed=0)
    for part in module.modules():  # statistics of a trained network, not 0 and 1
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    layers = chain(depth_groups(module)[:-1]).eval()
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 48, 32), dtype=np.uint8))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (CONTRACT.mean, CONTRACT.std))
    with torch.no_grad():
        expected = layers((pixels.float() - mean) / std)
    # float32 with BatchNorm folded: a few roundings per layer, 20 layers
    torch.testing.assert_close(
        torch_engine(layers, CONTRACT, torch.device("cpu"))(pixels), expected, atol=1e-6, rtol=1e-6
    )
    first = onnxruntime_engine(layers, CONTRACT, 1, tmp_path)
    torch.testing.assert_close(first(pixels), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(first(pixels[:1]), expected[:1], atol=1e-4, rtol=1e-4)
    written = (tmp_path / "frozen_layers.onnx").stat().st_mtime_ns
    again = onnxruntime_engine(layers, CONTRACT, 1, tmp_path)
    assert torch.equal(again(pixels), first(pixels))
    assert (tmp_path / "frozen_layers.onnx").stat().st_mtime_ns == written


def test_the_choice_depends_on_the_amount_of_arithmetic_alone() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose("auto", ONNXRUNTIME_PAYS_FROM - 1, cpu) == "torch"
    assert choose("auto", ONNXRUNTIME_PAYS_FROM, cpu) == "onnxruntime"
    assert choose("auto", 10**15, cuda) == "torch"
    assert choose("torch", 10**15, cpu) == "torch"
    assert choose("onnxruntime", 1, cpu) == "onnxruntime"


def test_multiply_adds_are_counted_by_hand() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),  # 8 x 48 x 32 outputs of 3 x 3 x 3 products
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),  # 8 x 24 x 16 outputs of 3 x 3
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
        nn.Linear(8, 5),  # 5 outputs of 8
    )
    expected = 8 * 48 * 32 * 27 + 8 * 24 * 16 * 9 + 5 * 8
    assert multiply_adds(layers, CONTRACT, torch.device("cpu")) == expected

"""The training loop against a plain PyTorch loop written here, on the same batches."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional

from edgeft.core.stage import Context
from edgeft.data.dataset import Dataset
from edgeft.finetune import frozen, full, sampling
from edgeft.finetune.config import FrozenConfig, FullConfig
from edgeft.models.checkpoint import load
from edgeft.models.config import InputOverride, ModelConfig
from edgeft.models.sources import create
from edgeft.testing.toys import Images

MODEL = ModelConfig(base="timm/test_resnet", input=InputOverride(height=32, width=32, resize="squash"))
SEED, EPOCHS, BATCH = 5, 2, 9


def context(folder: Path) -> Context:
    (folder / "out").mkdir(parents=True)
    (folder / "workspace").mkdir()
    return Context(folder / "out", folder / "workspace", seed=SEED, threads=1)


def plain_loop(data: Dataset, ctx: Context, *, head_only: bool) -> dict[str, torch.Tensor]:
    module = create(MODEL, None, data.classes, ctx.seed_for("head"))
    trained = list(module.fc.parameters() if head_only else module.parameters())  # type: ignore[union-attr,operator]
    optimizer = torch.optim.SGD(trained, lr=0.05, momentum=0.9, nesterov=True)
    for epoch in range(EPOCHS):
        module.train(not head_only)
        order = sampling.shuffled(data.indices("train"), sampling.epoch_seed(ctx.seed, "order", epoch))
        for rows in np.array_split(order, -(-len(order) // BATCH)):
            pixels = torch.from_numpy(data.pixels[rows].transpose(0, 3, 1, 2).astype(np.float32))
            loss = functional.cross_entropy(module((pixels - 127.5) / 127.5), torch.from_numpy(data.labels[rows]))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
    return module.state_dict()


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, tensor in expected.items():
        # float32 gradients summed in another order (fused optimizer, channels_last), over 8 steps
        torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}")


SETTINGS = {
    "model": MODEL,
    "epochs": EPOCHS,
    "batch_size": BATCH,
    "optimizer": "sgd",
    "lr": 0.05,
    "head_lr_factor": 1.0,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup": 0.0,
    "clip_norm": 1.0,
}


def test_full_is_a_plain_loop(tmp_path: Path) -> None:
    ctx, data = context(tmp_path), Images().write(tmp_path / "data")
    result = full.run(ctx, {"data": data}, FullConfig(**SETTINGS))
    assert result.measurements["best_epoch"] == EPOCHS - 1
    assert_same(load(result.folder)[0].state_dict(), plain_loop(Dataset.open(data), ctx, head_only=False))


def test_frozen_is_a_plain_loop_over_the_whole_network(tmp_path: Path) -> None:
    ctx, data = context(tmp_path), Images().write(tmp_path / "data")
    result = frozen.run(ctx, {"data": data}, FrozenConfig(**SETTINGS))
    assert result.measurements["best_epoch"] == EPOCHS - 1
    expected = plain_loop(Dataset.open(data), ctx, head_only=True)
    found = load_file(result.folder / "adapter.safetensors")
    assert set(found) == {"fc.weight", "fc.bias"}  # what was trained; the rest is the base
    assert_same(found, {name: expected[name] for name in found})

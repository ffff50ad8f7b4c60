"""Training speed of each method beside transformers' Trainer with peft: MiniLM-L6, review snippets, batch 32.

    python benchmarks/finetune/texts_vs_trainer_and_peft.py samples/reviews_en out [--rounds 2] [--methods full lora]

Both train AutoModel's encoder with AdamW on the same texts in the same order. Each arm is a fresh process, in turns (AB
BA ...); `--steps` optimizer steps are timed after `--warmup`, by text. The Trainer pads a batch to its longest text,
edgeft computes it in parts of alike lengths. `frozen` is timed whole: 30 epochs from after the imports to the trained
head, the Trainer computing the frozen encoder in every one of them and validating after the last, edgeft after each.
Prints one JSON line an arm and round, then the ratios of the medians; above 1, edgeft is faster. peft's prefix tuning
does not run on BERT any more.
"""

import argparse
import contextlib
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from stopwatch import Enough, stopwatch

BATCH, LR, FROZEN_EPOCHS, SEED = 32, 5e-4, 30, 0
EDGEFT: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"rank": 8},
    "ia3": {},
    "bitfit": {},
    "prompt": {"prompts": 16},
    "frozen": {"epochs": FROZEN_EPOCHS},
}


def texts(sample: Path, out: Path) -> tuple[Path, Path]:
    """Return the data stage's folder of a tenth of the sample's texts, and the encoder's folder."""
    from edgeft.core.events import ignore
    from edgeft.core.store import Store
    from edgeft.pipeline.walk import walk
    from edgeft.recipe.load import load_recipe
    from edgeft.recipe.resolve import Resolver, source_digests
    from edgeft.recipe.stages import stages

    store, table = Store(out.absolute() / "cache"), out.absolute() / "texts.csv"
    store.prepare()
    with (sample / "reviews.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([rows[0], *rows[1::10]])
    recipe = load_recipe(sample, (f"data.source={table}",))
    listed = {stage.name: stage for stage in stages(recipe, store)}
    resolver = Resolver(store, source_digests(recipe, store.cache, recipe.bundle_folder), recipe.seed)
    entries, _ = walk([listed["data"]], resolver, store, ignore)
    return entries["data"].folder, listed["finetune"].sources["weights"]


def adapted(model: Any, method: str) -> Any:  # noqa: ANN401 - transformers' and peft's models
    """Return `model` as a user of peft would train it by `method`."""
    import peft

    kind = peft.TaskType.SEQ_CLS
    if method in {"bitfit", "frozen"}:
        for name, parameter in model.named_parameters():
            head = name.startswith("classifier.")
            parameter.requires_grad_(head or (method == "bitfit" and parameter.ndim == 1))
        return model
    linear = ["query", "key", "value", "dense"]
    configs = {
        "lora": lambda: peft.LoraConfig(kind, r=8, lora_alpha=16, target_modules=linear),
        "ia3": lambda: peft.IA3Config(task_type=kind, target_modules=linear, feedforward_modules=[]),
        "prompt": lambda: peft.PromptTuningConfig(task_type=kind, num_virtual_tokens=16),
    }
    return peft.get_peft_model(model, configs[method]()) if method in configs else model


def trainer(method: str, data: Path, weights: Path, threads: int, tick: Callable[[], None]) -> None:
    import torch
    from torch.utils.data import Dataset as TorchDataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

    from edgeft.data.dataset import Dataset
    from edgeft.finetune.sampling import epoch_seed, shuffled

    torch.set_num_threads(threads)
    found = Dataset.open(data)

    class Rows(TorchDataset[int]):
        def __init__(self, split: Literal["train", "val"]) -> None:
            self.rows = shuffled(found.indices(split), epoch_seed(SEED, "order", 0))

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> int:
            return int(self.rows[index])

    def collate(batch: list[int]) -> dict[str, torch.Tensor]:
        import numpy as np

        feeds = found.feeds(np.array(batch))
        return {name: torch.from_numpy(each) for name, each in feeds.items()} | {
            "labels": torch.from_numpy(found.labels[batch])
        }

    class InOrder(Trainer):  # type: ignore[misc] # as below
        def _get_train_sampler(self, *_: object) -> SequentialSampler:
            return SequentialSampler(self.train_dataset)

    class Clock(TrainerCallback):  # type: ignore[misc] # transformers has no types here
        def on_step_end(self, *_: object, **__: object) -> None:
            tick()

    model = AutoModelForSequenceClassification.from_pretrained(weights, num_labels=len(found.classes))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            num_train_epochs=FROZEN_EPOCHS if method == "frozen" else 1000,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_num_workers=0,
        )
        given = {"train_dataset": Rows("train"), "eval_dataset": Rows("val"), "data_collator": collate}
        made = InOrder(adapted(model, method), arguments, **given, callbacks=[Clock()])
        made.train()
        made.evaluate()


def edgeft(method: str, data: Path, weights: Path, threads: int, tick: Callable[[], None]) -> None:
    from edgeft import catalog
    from edgeft.core.events import Event, Progress
    from edgeft.core.stage import Context
    from edgeft.models.config import ModelConfig

    def emit(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "finetune":
            tick()

    chosen = catalog.find("finetune", method)
    model = ModelConfig(base="transformers", weights=str(weights), dropout=0.1)
    values = {"epochs": 1000, "batch_size": BATCH, "lr": LR, **EDGEFT[method]}
    config = catalog.resolve(chosen.config)(model=model, **values)
    with tempfile.TemporaryDirectory() as folder:
        out, work = Path(folder) / "out", Path(folder) / "work"
        out.mkdir()
        work.mkdir()
        context = Context(out, work, seed=SEED, threads=threads, emit=emit)
        catalog.resolve(chosen.run)(context, {"data": data, "weights": weights}, config)


def once(arm: str, method: str, places: tuple[Path, Path], given: argparse.Namespace) -> dict[str, Any]:
    """Return what one arm does in this process: seconds a text that was trained on, or of all."""
    run = {"trainer": trainer, "edgeft": edgeft}[arm]
    if method == "frozen":
        began = time.perf_counter()
        run(method, *places, given.threads, lambda: None)
        return {"arm": arm, "method": method, "seconds": time.perf_counter() - began}
    tick, seconds = stopwatch(given.warmup, given.steps)
    sizes, seen = counted(), []

    def step() -> None:
        seen.append((sum(texts for texts, _ in sizes), sum(tokens for _, tokens in sizes)))
        tick()

    with contextlib.suppress(Enough):
        run(method, *places, given.threads, step)
    texts, tokens = (last - first for first, last in zip(seen[given.warmup], seen[-1], strict=True))
    return {"arm": arm, "method": method, "seconds": sum(seconds) / texts, "texts": texts, "tokens": tokens}


def counted() -> list[tuple[int, int]]:
    """Return a list that takes texts and tokens, padding included, of all that is fed from now on."""
    from edgeft.runtime.text import IDS, TokenTable

    sizes: list[tuple[int, int]] = []
    plain = TokenTable.feeds

    def feeds(table: TokenTable, rows: Any) -> Any:  # noqa: ANN401 - as TokenTable's
        found = plain(table, rows)
        sizes.append((len(rows), found[IDS].size))
        return found

    TokenTable.feeds = feeds  # type: ignore[method-assign] # it is what this is for
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=list(EDGEFT))
    parser.add_argument("--arm", choices=("edgeft", "trainer"), help="run this arm alone, in this process")
    given = parser.parse_args()
    places = texts(given.sample, given.out)
    if given.arm:
        print(json.dumps(once(given.arm, given.methods[0], places, given)))
        return
    options = [f"--{name}={getattr(given, name)}" for name in ("steps", "warmup", "threads")]
    for method in given.methods:
        seconds: dict[str, list[float]] = {"edgeft": [], "trainer": []}
        for number in range(given.rounds):
            for arm in ("edgeft", "trainer") if number % 2 == 0 else ("trainer", "edgeft"):
                command = [sys.executable, __file__, given.sample, given.out, *options, "--methods", method]
                done = subprocess.run([*command, "--arm", arm], check=False, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stderr[-2000:])
                line = done.stdout.splitlines()[-1]
                print(line, flush=True)
                seconds[arm].append(json.loads(line)["seconds"])
        middle = {arm: statistics.median(values) for arm, values in seconds.items()}
        print(json.dumps({"method": method, "trainer/edgeft": middle["trainer"] / middle["edgeft"]}), flush=True)


if __name__ == "__main__":
    main()

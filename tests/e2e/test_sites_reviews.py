"""Three sites that keep their reviews and share adapters: the average beats each alone, on real texts."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeft import catalog
from edgeft.core.stage import Context
from edgeft.data.dataset import Dataset
from edgeft.finetune.sites import merge_folders
from edgeft.models.predict import logits
from edgeft.recipe.load import load_recipe
from edgeft.recipe.paths import locate

SAMPLE = Path(__file__).parents[2] / "samples" / "reviews_en"
SITES, TRAIN, VAL, TEST = 3, 300, 100, 2000


def tables(folder: Path) -> list[Path]:
    """One table a site: rows of its own to train and validate on, and the same test rows for all."""
    (folder / "recipe.yaml").write_text((SAMPLE / "recipe.yaml").read_text())
    script = folder / "prepare.py"
    script.write_text((SAMPLE / "prepare.py").read_text())
    subprocess.run([sys.executable, script], check=True, capture_output=True)
    with (folder / "reviews.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    order = np.random.default_rng(0).permutation(len(rows))
    test, rest = order[:TEST], order[TEST:]
    found = []
    for site in range(SITES):
        own = rest[site * (TRAIN + VAL) : (site + 1) * (TRAIN + VAL)]
        parts = {"train": own[:TRAIN], "val": own[TRAIN:], "test": test}
        path = folder / f"site-{site}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label", "split"])
            writer.writeheader()
            for split, chosen in parts.items():
                writer.writerows({"text": rows[i]["text"], "label": rows[i]["label"], "split": split} for i in chosen)
        found.append(path)
    return found


def stage(kind: str, name: str, folder: Path, inputs: dict[str, Path], **config: object) -> Path:
    method = catalog.find(kind, name)  # type: ignore[arg-type] # a kind
    (folder / "out").mkdir(parents=True)
    (folder / "work").mkdir()
    context = Context(folder / "out", folder / "work", seed=0, threads=2)
    result: Path = catalog.resolve(method.run)(context, inputs, catalog.resolve(method.config)(**config)).folder
    return result


@pytest.mark.slow
def test_the_average_of_three_sites_beats_each_alone(tmp_path: Path) -> None:
    sources = tables(tmp_path)
    recipe = load_recipe(tmp_path)
    model = recipe.model
    weights = locate(model.weights, tmp_path, key="model.weights")  # type: ignore[attr-defined] # a ModelConfig
    entry = catalog.resolve("edgeft.models.text_source:describe")(model, weights)
    settings = {
        "epochs": 4,
        "batch_size": 16,
        "lr": 1e-3,
        "head_lr_factor": 1,
        "weight_decay": 0.01,
        "metric": "accuracy",
    }
    adapters, right = [], []
    for number, source in enumerate(sources):
        place = tmp_path / f"site-{number}"
        columns = {"text": "text", "label": "label", "split": "split"}
        given = {"source": source, "tokenizer": weights / "tokenizer.json"}
        data = stage("data", "text", place / "data", given, source=source.name, columns=columns, input=entry)
        inputs = {"data": data, "weights": weights}
        adapters.append(stage("finetune", "lora", place / "lora", inputs, model=model, **settings))
        merged = stage("merge", "lora", place / "merge", {**inputs, "finetune": adapters[-1]}, model=model)
        right.append(accuracy(merged, data))
    merge_folders(weights, adapters, tmp_path / "average", threads=2)
    together = accuracy(tmp_path / "average", data)
    assert together > max(right), f"each alone {right}, on average {together}"


def accuracy(checkpoint: Path, folder: Path) -> float:
    data = Dataset.open(folder)
    rows = data.indices("test")
    assert len(rows) > 0.95 * TEST  # some texts stand twice
    return float(np.mean(logits(checkpoint, data.part(rows), 2).argmax(axis=1) == data.labels[rows]))

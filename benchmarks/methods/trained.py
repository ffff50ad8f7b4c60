"""Trains a recipe to its checkpoint and tells its accuracy on the test split in torch: no export, no int8, any device.

    python benchmarks/methods/trained.py SAMPLE --cache DIR [--set KEY=VALUE ...]

Prints one JSON object. `methods.py --train-only` runs it for every method.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from edgeft.core.events import ignore
from edgeft.core.store import Store
from edgeft.data.dataset import Dataset
from edgeft.models.checkpoint import load
from edgeft.models.predict import as_module_takes
from edgeft.pipeline.walk import walk
from edgeft.recipe.load import load_recipe
from edgeft.recipe.resolve import Resolver, source_digests
from edgeft.recipe.stages import stages
from edgeft.verify.intervals import metric_interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    recipe = load_recipe(args.sample, tuple(args.set))
    store = Store(args.cache.absolute())
    store.prepare()
    wanted = [stage for stage in stages(recipe, store) if stage.name in {"data", "finetune", "merge"}]
    entries, records = walk(
        wanted, Resolver(store, source_digests(recipe, store.cache, recipe.bundle_folder), recipe.seed), store, ignore
    )
    tuned = next(record for record in records if record.name == "finetune")
    data = Dataset.open(entries["data"].folder)
    module, meta = load(entries["merge" if "merge" in entries else "finetune"].folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    takes, rows = as_module_takes(meta), data.indices("test")
    module.to(device)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), 64):
            given = takes(data.feeds(rows[start : start + 64]))
            moved = (
                {name: each.to(device) for name, each in given.items()} if isinstance(given, dict) else given.to(device)
            )
            parts.append(module(moved).cpu().numpy())
    scores, labels = np.concatenate(parts), data.labels[rows]
    found = {
        "accuracy": float((scores.argmax(1) == labels).mean()),
        "interval": metric_interval("accuracy", labels, scores, len(data.classes), 0),
        "n": len(rows),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "measurements": dict(tuned.measurements),
        "timings": dict(tuned.timings),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()

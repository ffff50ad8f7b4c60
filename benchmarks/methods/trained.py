"""Trains a recipe to its checkpoint and tells its accuracy on the test split in torch: no export, no int8, any device.

    python benchmarks/methods/trained.py SAMPLE --cache DIR [--set KEY=VALUE ...]

Prints one JSON object. `methods.py --train-only` runs it for every method.
"""

import argparse
import json
from pathlib import Path

import torch

from edgeft.core.events import ignore
from edgeft.core.store import Store
from edgeft.data.dataset import Dataset
from edgeft.finetune import evaluate
from edgeft.finetune.feeds import PixelFeed, TokenFeed
from edgeft.models.checkpoint import load
from edgeft.models.pixels import Normalizer
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
    module, _ = load(entries["merge" if "merge" in entries else "finetune"].folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pixels = None if data.is_text else PixelFeed(data.pixels, Normalizer(data.input, device), None, 0)
    feed, rows = pixels or TokenFeed(data.tokens, device), data.indices("test")
    scores, labels = evaluate.logits(module.to(device), feed.evaluate, data, rows), data.labels[rows]
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

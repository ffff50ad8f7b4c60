"""Every finetune method on one task: what it reaches, what it trains, what it costs.

    python benchmarks/methods/methods.py SAMPLE OUT [--limit 1000] [--seeds 0] [--methods full lora] [--jobs 1]
                                                    [--set KEY=VALUE] [--train-only]

Each run is `edgeft build SAMPLE --no-latency` with the method's settings below, into OUT/METHOD-SEED; what is there
already is not run again, so stop and start it at will. Ends with a table: metric on the test split with its interval
(over several seeds its mean and standard deviation), what ships, share of trained parameters, seconds an epoch (after
the first), peak memory of the whole build. With `--jobs` the runs share the machine, so seconds are upper bounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import yaml

from edgeft.core import machine

TEXTS: dict[str, dict[str, Any]] = {
    "full": {"lr": 5e-5, "head_lr_factor": 20},
    "full, rates falling by .8 a layer": {"method": "full", "lr": 1e-4, "head_lr_factor": 10, "lr_decay": 0.8},
    "frozen": {"lr": 1e-2, "epochs": 30},
    "gradual": {"lr": 1e-4, "head_lr_factor": 10, "head_epochs": 1, "groups_per_release": 3},
    "first_n_frozen": {"lr": 5e-5, "head_lr_factor": 20, "frozen_groups": 4},
    "bitfit": {"lr": 2e-3, "head_lr_factor": 1},
    "lora": {"lr": 5e-4, "head_lr_factor": 2},
    "lora, dora": {"method": "lora", "dora": True, "lr": 5e-4, "head_lr_factor": 2},
    "lora, rslora": {"method": "lora", "rslora": True, "lr": 5e-4, "head_lr_factor": 2},
    "ia3": {"lr": 1e-2, "head_lr_factor": 0.5},
    "adapter": {"lr": 1e-3, "head_lr_factor": 1, "bottleneck": 32},
    "prompt": {"lr": 1e-2, "head_lr_factor": 0.5, "prompts": 16},
    "prefix": {"lr": 1e-2, "head_lr_factor": 0.5, "prefixes": 16},
    "hybrid": {
        "steps": [
            {"method": "lora", "epochs": 2, "lr": 5e-4, "head_lr_factor": 2},
            {"method": "first_n_frozen", "epochs": 1, "lr": 2e-5, "frozen_groups": 6},
        ]
    },
}
IMAGES: dict[str, dict[str, Any]] = {
    "full": {"lr": 1e-3, "lr_decay": 0.9},
    "frozen": {"lr": 1e-2, "epochs": 30, "views": 5},
    "gradual": {"lr": 1e-3, "lr_decay": 0.9, "head_epochs": 0, "groups_per_release": 10, "frozen_groups": 2},
    "first_n_frozen": {"lr": 1e-3, "lr_decay": 0.9, "frozen_groups": 4},
    "bitfit": {"lr": 5e-3, "head_lr_factor": 1},
    "lora": {"lr": 2e-3, "head_lr_factor": 2},
    "lora, dora": {"method": "lora", "dora": True, "lr": 2e-3, "head_lr_factor": 2},
    "lora, rslora": {"method": "lora", "rslora": True, "lr": 2e-3, "head_lr_factor": 2},
    "ia3": {"lr": 1e-2, "head_lr_factor": 0.5},
    "adapter": {"lr": 2e-3, "head_lr_factor": 1, "bottleneck": 32},
    "hybrid": {
        "lr": 1e-3,
        "lr_decay": 0.9,
        "steps": [{"method": "frozen", "epochs": 10, "lr": 1e-2, "views": 5}, {"method": "full"}],
    },
}
COMMON: dict[str, dict[str, Any]] = {
    "texts": {"epochs": 3, "weight_decay": 0.01, "schedule": "cosine", "warmup": 0.1, "clip_norm": 1.0},
    "images": {"epochs": 9, "augment": "inspection", "schedule": "one_cycle", "warmup": 0.25, "label_smoothing": 0.05},
}


def place(out: Path, name: str, seed: int) -> Path:
    return out / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}"


def ran(
    args: argparse.Namespace,
    command: list[str | Path],
    settings: dict[str, Any],
    seed: int,
    cores: set[int],
    good: set[int],
) -> str:
    """Run python with `command` and a method's settings on some cores, and return what it printed."""
    changes = [f"seed={seed}", f"data.limit={args.limit or 'null'}", f"finetune={json.dumps(settings)}", *args.set]
    sets = [part for change in changes for part in ("--set", change)]
    done = subprocess.run(
        [sys.executable, *command, "--cache", args.out / "cache", *sets],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode not in good:
        raise RuntimeError(f"seed {seed}: {done.stderr[-2000:]}")
    return done.stdout


def build(args: argparse.Namespace, settings: dict[str, Any], name: str, seed: int, cores: set[int]) -> None:
    """Build once, or leave what an earlier run built."""
    folder = place(args.out, name, seed)
    if (folder / "report.json").is_file():
        return
    command = ["-m", "edgeft", "build", args.sample, "--no-latency", "--out", folder]
    ran(args, command, settings, seed, cores, good={0, 5})
    failed = folder.with_name(f"{folder.name}.failed")
    if not folder.is_dir() and failed.is_dir():
        failed.rename(folder)


def train(args: argparse.Namespace, settings: dict[str, Any], name: str, seed: int, cores: set[int]) -> None:
    """Train once with `trained.py`, or leave what an earlier run found."""
    told = place(args.out, name, seed).with_suffix(".json")
    if told.is_file():
        return
    said = ran(args, [Path(__file__).with_name("trained.py"), args.sample], settings, seed, cores, good={0})
    told.write_text(said.splitlines()[-1] + "\n", encoding="utf-8")


def percent(values: list[float], interval: tuple[float, float]) -> str:
    """Return the mean in percent, with the spread over several seeds or the interval of one."""
    low, high = (100 * end for end in interval)
    spread = f"± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else f"({low:.1f} to {high:.1f})"
    return f"{100 * statistics.mean(values):.1f} {spread}"


def trained_cells(name: str, found: list[dict[str, Any]]) -> str:
    """Return the line of one method that was trained alone."""
    first, values = found[0], [each["accuracy"] for each in found]
    epochs, timings = first["timings"]["seconds_per_epoch"], first["timings"]
    memory = timings["peak_gpu_memory_bytes"] or timings["peak_memory_bytes"]
    return (
        f"| {name} | {percent(values, first['interval'])} | {first['measurements']['trainable_share']:.2%} | "
        f"{statistics.median(epochs[1:] or epochs):.1f} | {memory / 1e6:.0f} | {first['n']} | {first['device']} |"
    )


def cells(name: str, records: list[dict[str, Any]]) -> str:
    """Return the table's line of one method."""
    first = records[0]
    tuned = next(stage for stage in first["stages"] if stage["name"] == "finetune")
    blocks = first["verify"]["metrics"]
    ship = first["verify"]["chosen"]
    values = [record["verify"]["metrics"]["fp32"]["accuracy"] for record in records]
    interval = blocks["fp32"]["accuracy_interval"]
    epochs = tuned["timings"]["seconds_per_epoch"]
    size = next(item for item in first["candidates"]["candidates"] if item["name"] == ship)["size_bytes"]
    return (
        f"| {name} | {percent(values, interval)} | {100 * blocks[ship]['accuracy']:.1f} ({ship}) | "
        f"{tuned['measurements']['trainable_share']:.2%} | {statistics.median(epochs[1:] or epochs):.1f} | "
        f"{tuned['timings']['peak_memory_bytes'] / 1e6:.0f} | {size / 1e6:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=int, default=0, help="rows of each class in each split; 0 takes all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", help="default: all that work on the sample")
    parser.add_argument("--set", action="append", default=[], help="as edgeft build's")
    parser.add_argument("--train-only", action="store_true", help="accuracy of the checkpoint in torch, no bundle")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each on its part of the cores")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    recipe = yaml.safe_load((args.sample / "recipe.yaml").read_text(encoding="utf-8"))
    kind, known = ("texts", TEXTS) if recipe["model"]["base"].startswith("transformers") else ("images", IMAGES)
    names = args.methods or list(known)
    print(json.dumps({"machine": machine.facts()}))
    cores = sorted(os.sched_getaffinity(0))
    free: Queue[set[int]] = Queue()
    for job in range(args.jobs):
        free.put(set(cores[job :: args.jobs]) or set(cores))

    def run(name: str, seed: int) -> None:
        own = free.get()
        try:
            settings = {"method": name, "batch_size": 32, "metric": "accuracy", **COMMON[kind], **known[name]}
            (train if args.train_only else build)(args, settings, name, seed, own)
        finally:
            free.put(own)

    with ThreadPoolExecutor(args.jobs) as pool:
        runs = {(name, seed): pool.submit(run, name, seed) for name in names for seed in args.seeds}
    if args.train_only:
        print("| method | accuracy, % | trained | s an epoch | peak MB | test rows | device |")
    else:
        print("| method | accuracy, % | what ships | trained | s an epoch | peak MB | file MB |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        if errors := [found for seed in args.seeds if (found := runs[name, seed].exception())]:
            print(f"{name}: {errors[0]}", file=sys.stderr)
            continue
        places = [place(args.out, name, seed) for seed in args.seeds]
        if args.train_only:
            print(trained_cells(name, [json.loads(each.with_suffix(".json").read_bytes()) for each in places]))
            continue
        records = [json.loads((each / "report.json").read_bytes()) for each in places]
        print(cells(name, records), flush=True)


if __name__ == "__main__":
    main()

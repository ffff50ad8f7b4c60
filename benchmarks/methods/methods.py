"""Every finetune method on one task: what it reaches, what it trains, what it costs.

    python benchmarks/methods/methods.py SAMPLE OUT [--limit 1000] [--epochs 3] [--seeds 0] [--methods full lora]

Each run is `edgeft build SAMPLE --no-latency` with the method's settings below, into OUT/METHOD-SEED; what is there
already is not run again, so stop and start it at will. Ends with a table: metric on the test split with its interval,
what ships in int8, share of trained parameters, seconds an epoch (after the first), peak memory of the whole build.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgeft.core import machine

SETTINGS: dict[str, dict[str, Any]] = {
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
}
COMMON = {
    "batch_size": 32,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "warmup": 0.1,
    "clip_norm": 1.0,
    "metric": "accuracy",
}


def build(sample: Path, out: Path, name: str, seed: int, epochs: int, limit: int) -> dict[str, Any]:
    """Build once, or read what an earlier run built."""
    place = out / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}"
    record = place / "report.json"
    if not record.is_file():
        settings = {"method": name, "epochs": epochs, **COMMON, **SETTINGS[name]}
        command = [
            sys.executable,
            "-m",
            "edgeft",
            "build",
            sample,
            "--no-latency",
            "--out",
            place,
            "--cache",
            out / "cache",
        ]
        changes = [f"seed={seed}", f"data.limit={limit}", f"finetune={json.dumps(settings)}"]
        sets = [part for change in changes for part in ("--set", change)]
        done = subprocess.run([*command, *sets], capture_output=True, text=True, check=False)
        if done.returncode not in {0, 5}:
            sys.exit(done.stderr[-2000:])
        failed = place.with_name(f"{place.name}.failed")
        if not place.is_dir() and failed.is_dir():
            failed.rename(place)
    found: dict[str, Any] = json.loads(record.read_bytes())
    return found


def cells(name: str, records: list[dict[str, Any]]) -> str:
    """Return the table's line of one method."""
    first = records[0]
    tuned = next(stage for stage in first["stages"] if stage["name"] == "finetune")
    blocks = first["verify"]["metrics"]
    ship = first["verify"]["chosen"]
    values = [record["verify"]["metrics"]["fp32"]["accuracy"] for record in records]
    low, high = blocks["fp32"]["accuracy_interval"]
    spread = (
        f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else f" ({100 * low:.1f} to {100 * high:.1f})"
    )
    epochs = tuned["timings"]["seconds_per_epoch"]
    size = next(item for item in first["candidates"]["candidates"] if item["name"] == ship)["size_bytes"]
    return (
        f"| {name} | {100 * statistics.mean(values):.1f}{spread} | {100 * blocks[ship]['accuracy']:.1f} ({ship}) | "
        f"{tuned['measurements']['trainable_share']:.2%} | {statistics.median(epochs[1:] or epochs):.1f} | "
        f"{tuned['timings']['peak_memory_bytes'] / 1e6:.0f} | {size / 1e6:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", default=list(SETTINGS))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print(json.dumps({"machine": machine.facts()}))
    print("| method | accuracy, % | what ships | trained | s an epoch | peak MB | file MB |")
    print("|---|---|---|---|---|---|---|")
    for name in args.methods:
        seeds = [build(args.sample, args.out, name, seed, args.epochs, args.limit) for seed in args.seeds]
        print(cells(name, seeds), flush=True)


if __name__ == "__main__":
    main()

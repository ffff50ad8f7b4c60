"""What 30 % fewer multiply-adds are worth: pruned nets beside the same nets whole, both as int8 bundles.

    python benchmarks/distill/pruned.py OUT [--share 0.3] [--nets timm/resnet18 ...] [--set KEY=VALUE]

For each net two builds of samples/solar_cells with --smoke (few images: speed does not depend on what was learned), one
with `distill.prune`; then `edgeft compare`, ABBA rounds of fresh processes on one thread. EfficientNet-Lite0 has its
pretrained weights, the others random ones. Every build must pass its parity gates, or this stops.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgeft.core import machine

SAMPLE = Path(__file__).parents[2] / "samples" / "solar_cells"
NETS = ("timm/resnet18", "torchvision/mobilenet_v2", "timm/tf_efficientnet_lite0")
WEIGHTED = "timm/tf_efficientnet_lite0"


def edgeft(*words: str | Path, good: tuple[int, ...]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "edgeft", *words, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode not in good:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def built(out: Path, net: str, share: float | None, more: list[str]) -> tuple[Path, dict[str, Any]]:
    """Build `net`, pruned or whole; return its bundle and the record."""
    name = f"{net.rpartition('/')[2]}-{share or 'whole'}"
    sets = more + ([] if net == WEIGHTED else [f"model.base={net}", "model.weights=null"])
    sets += [] if share is None else [f"distill.prune={share}"]
    words = [part for change in sets for part in ("--set", change)]
    build = ["build", SAMPLE, "--smoke", "--no-latency", "--cache", out / "cache", "--out", out / name, *words]
    found = edgeft(*build, good=(0, 5))
    bundle = Path(found["bundle"])
    record: dict[str, Any] = json.loads((bundle / "report.json").read_bytes())
    failed = [
        gate["name"] for gate in record["gates"] if gate["name"].startswith("parity") and gate["verdict"] != "PASS"
    ]
    if failed:
        raise RuntimeError(f"{name}: {failed} failed")
    return bundle, record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--nets", nargs="+", default=NETS)
    parser.add_argument("--set", action="append", default=[], help="as edgeft build's, for both")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print(json.dumps({"machine": machine.facts()}))
    print("| net | multiply-adds, million | int8 file, MB | int8, ms | times as fast |")
    print("|---|---|---|---|---|")
    for net in args.nets:
        whole, before = built(args.out, net, None, args.set)
        pruned, after = built(args.out, net, args.share, args.set)
        note = next(note for stage in after["stages"] for note in stage["notes"] if "multiply-adds" in note)
        left, of = re.findall(r"([\d.]+) of ([\d.]+) million", note)[0]
        sizes = [
            next(c["size_bytes"] for c in record["candidates"]["candidates"] if c["name"] == record["verify"]["chosen"])
            for record in (before, after)
        ]
        told = edgeft("compare", whole, pruned, good=(0, 6, 7))
        told = told["latency"]
        low, high = told["interval"]
        slow, fast = (told[arm]["median_ms"] for arm in ("base", "new"))
        print(
            f"| {net} | {of} > {left} | {sizes[0] / 1e6:.2f} > {sizes[1] / 1e6:.2f} | {slow:.2f} > {fast:.2f} | "
            f"{1 / told['ratio']:.2f} ({1 / high:.2f} to {1 / low:.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()

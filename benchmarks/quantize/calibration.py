"""Peak memory and wall time of a whole quantization: edgeft beside onnxruntime's `quantize_static` and NNCF.

    python benchmarks/quantize/calibration.py OUT [--images 32 128 300] [--rounds 3] [--threads 1]

Every cell (model, arm, number of images, round) is a fresh process with an environment of its own, so that no cell sees
another's memory; arms take turns within a round. All read the same fp32 ONNX and the same .npy of real solar cells
(elpv-dataset, CC-BY-NC-SA-4.0). Peers are installed by pip into OUT/venvs and configured as their documentation says
for x86: onnxruntime with QDQ, per channel, reduce_range; NNCF with its defaults and subset_size = the images. A process
may use --threads CPUs, whatever its tool would like (onnxruntime has to be told: its threads leave the CPUs that they
are given). Results are appended to OUT/cells.jsonl and cells found there are not run again: stop and start it at will.
Ends with a table and the ratios that the project holds itself to.

This file imports the standard library alone: a child's peak memory would count its parent's.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

ARMS_FILE = Path(__file__).with_name("calibration_arms.py")
MODELS = ("mobilenetv2", "efficientnet_lite0")
ARMS = {
    "edgeft auto": ("edgeft", "auto"),
    "edgeft minmax": ("edgeft", "minmax"),
    "edgeft mse": ("edgeft", "mse"),
    "edgeft entropy": ("edgeft", "entropy"),
    "onnxruntime minmax": ("onnxruntime", "minmax"),
    "onnxruntime entropy": ("onnxruntime", "entropy"),
    "nncf onnx": ("nncf", "onnx"),
    "nncf openvino": ("nncf", "openvino"),
}
PACKAGES = {
    "onnxruntime": ("onnxruntime==1.32.0", "onnx==1.23.2"),
    "nncf": ("nncf==3.4.0", "openvino==2026.4.1", "onnxruntime==1.32.0", "onnx"),
    "olive": ("olive-ai==0.13.0", "onnxruntime==1.32.0", "requests"),
}
WEIGHTS = {
    "mobilenetv2": "random: no package has any; times and memory hold, accuracies would mean nothing",
    "efficientnet_lite0": "ImageNet",
}
TIME_BARS = (
    ("edgeft minmax", "onnxruntime minmax", "<=", 1.0),
    ("edgeft auto", "onnxruntime minmax", "<=", 1.0),
    ("edgeft auto", "onnxruntime entropy", ">=", 3.0),
)
MEMORY_SHARE = 0.85
"""Of the memory available at the start: the most that a cell may map."""

Cell = dict[str, Any]


def interpreter(tool: str, venvs: Path) -> Path:
    """Return the Python that runs `tool`; a peer's environment is made where it is missing."""
    if tool == "edgeft":
        return Path(sys.executable)
    folder = venvs / tool
    python, done = folder / "bin" / "python", folder / ".installed"
    if not done.is_file() or done.read_text() != " ".join(PACKAGES[tool]):
        print(f"installing {', '.join(PACKAGES[tool])}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[tool]], check=True)
        done.write_text(" ".join(PACKAGES[tool]))
    return python


def available_gb() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def machine(threads: int) -> dict[str, Any]:
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model[0].partition(":")[2].strip() if model else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "cpus_per_arm": threads,
        "memory_gb": round(memory, 1),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def run_cell(cell: Cell, out: Path, args: argparse.Namespace, limit_gb: float) -> Cell:
    """Return `cell` with what its process measured, or why it measured nothing."""
    tool, mode = ARMS[cell["arm"]]
    inputs = out / "inputs"
    command = [interpreter(tool, args.venvs or out / "venvs"), ARMS_FILE, tool, mode]
    command += [inputs / f"{cell['model']}.onnx", inputs / "images.npy", out / "int8" / tool / mode]
    command += ["--images", str(cell["images"]), "--threads", str(args.threads)]
    command += ["--memory-limit-gb", f"{limit_gb:.1f}"]
    cpus = sorted(os.sched_getaffinity(0))[: args.threads]
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    try:
        done = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            check=False,
            timeout=args.timeout_s,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )
    except subprocess.TimeoutExpired:
        return cell | {"status": f"took more than {args.timeout_s} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return cell | {"status": "ok", **json.loads(lines[-1])}
    said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
    limit = f"at a limit of {limit_gb:.1f} GB"
    return cell | {"status": f"ended with {done.returncode} {limit}: {said[:200]}"}


def key(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell[name] for name in ("model", "arm", "images", "round", "threads", "inputs"))


def inputs_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def median(cells: list[Cell], field: str, **fixed: object) -> float | None:
    """Return the median of `field` over the rounds of one (model, arm, images), or None where none succeeded."""
    values = [c[field] for c in cells if c["status"] == "ok" and all(c[k] == v for k, v in fixed.items())]
    return statistics.median(values) if values else None


def paired_ratio(cells: list[Cell], field: str, above: Cell, below: Cell) -> float | None:
    """Return the median over rounds of field(above) / field(below)."""

    def by_round(fixed: Cell) -> dict[int, float]:
        fits = [c for c in cells if c["status"] == "ok" and all(c[k] == v for k, v in fixed.items())]
        return {c["round"]: c[field] for c in fits}

    upper, lower = by_round(above), by_round(below)
    ratios = [upper[r] / lower[r] for r in upper.keys() & lower.keys()]
    return statistics.median(ratios) if ratios else None


def bars(cells: list[Cell], models: list[str], images: list[int]) -> list[tuple[str, float | None, str, float]]:
    """Return (what, ratio, "<=" or ">=", bar) for every bar."""
    ours, entropy = "edgeft auto", "onnxruntime entropy"
    few, many = min(images), max(images)
    found = []
    for model in models:

        def ratio(field: str, above: tuple[str, int], below: tuple[str, int], model: str = model) -> float | None:
            cell = [{"model": model, "arm": arm, "images": n} for arm, n in (above, below)]
            return paired_ratio(cells, field, *cell)

        found.append(
            (
                f"{model}: {ours}, peak memory at {many} / {few} images",
                ratio("peak_mb", (ours, many), (ours, few)),
                "<=",
                1.3,
            )
        )
        found.append(
            (
                f"{model}: peak memory, {entropy} / {ours}, {few} images",
                ratio("peak_mb", (entropy, few), (ours, few)),
                ">=",
                7.0,
            )
        )
        for n, (arm, peer, sign, bar) in product(images, TIME_BARS):
            above, below = (arm, peer) if sign == "<=" else (peer, arm)
            what = f"{model}: time, {above} / {below}, {n} images"
            found.append((what, ratio("seconds", (above, n), (below, n)), sign, bar))
    return found


def tables(cells: list[Cell], models: list[str], arms: list[str], images: list[int]) -> str:
    head = "".join(f" {n} images: s | peak MB |" for n in images)
    lines = [f"| model | arm | imports MB |{head}", "|---|---|---|" + "---|---|" * len(images)]
    for model, arm in product(models, arms):
        imports = median(cells, "imports_mb", model=model, arm=arm)
        row = [model, arm, _text(imports, 0)]
        for n in images:
            row += [
                _text(median(cells, f, model=model, arm=arm, images=n), d) for f, d in (("seconds", 1), ("peak_mb", 0))
            ]
        lines.append("| " + " | ".join(row) + " |")
    lines += ["", "| bar | ratio | wanted | |", "|---|---|---|---|"]
    for what, ratio, sign, bar in bars(cells, models, images):
        holds = (
            "not measured"
            if ratio is None
            else "holds"
            if (ratio <= bar if sign == "<=" else ratio >= bar)
            else "fails"
        )
        lines.append(f"| {what} | {_text(ratio, 2)} | {sign} {bar} | {holds} |")
    failed = [c for c in cells if c["status"] != "ok"]
    lines += [""] + [
        f"- {c['model']}, {c['arm']}, {c['images']} images, round {c['round']}: {c['status']}" for c in failed
    ]
    return "\n".join(lines)


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[32, 128, 300])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--timeout-s", type=int, default=3600)
    parser.add_argument("--venvs", type=Path, help="environments of the peers (default OUT/venvs)")
    parser.add_argument("--retry-failed", action="store_true", help="run cells again that failed before")
    return parser.parse_args()


def main() -> None:
    args = parse()
    inputs, log = args.out / "inputs", args.out / "cells.jsonl"
    if not all((inputs / name).is_file() for name in ("images.npy", *(f"{model}.onnx" for model in MODELS))):
        command = [sys.executable, ARMS_FILE, "prepare", inputs, "--images", str(max(args.images))]
        subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)
    facts, digest, limit_gb = machine(args.threads), inputs_digest(inputs), available_gb() * MEMORY_SHARE
    print(json.dumps({"machine": facts}))
    print(json.dumps({"weights": WEIGHTS}))
    known = {}
    for line in log.read_text().splitlines() if log.is_file() else ():
        cell = json.loads(line)
        known[key(cell)] = cell
    shown = []
    for number, model, n, arm in product(range(args.rounds), args.models, args.images, args.arms):
        cell = {"model": model, "arm": arm, "images": n, "round": number, "threads": args.threads, "inputs": digest}
        found = known.get(key(cell))
        if found is None or (args.retry_failed and found["status"] != "ok"):
            found = run_cell(cell, args.out, args, limit_gb) | {"measured": time.strftime("%Y-%m-%dT%H:%M:%S")}
            with log.open("a") as file:
                file.write(json.dumps(found) + "\n")
        shown.append(found)
        print(json.dumps(found), flush=True)
    print()
    print(tables(shown, args.models, args.arms, args.images))


if __name__ == "__main__":
    main()

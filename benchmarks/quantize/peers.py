"""Accuracy and speed of int8 against peers: the same trained graph, calibration images, evaluation images, machine.

    python benchmarks/quantize/peers.py OUT TASK... [--rounds 15]

Each TASK is a folder of tasks.py. Every tool runs in a process and an environment of its own (calibration_arms.py), set
up as its documentation says for x86; edgeft climbs its ladder by the validation images. Then all files answer the
evaluation images and take turns on one thread, batch 1 (race.py): OpenVINO's files in OpenVINO, all others in
onnxruntime. Ratios are medians over rounds of fp32's time over the file's, with bootstrap intervals. Environments are
made in OUT/venvs; what OUT/results.jsonl holds is not run again. Writes OUT/peers.md.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from calibration import ARMS_FILE, interpreter, machine

ARMS = {
    "edgeft": ("edgeft", "ladder"),
    "edgeft, in OpenVINO": ("edgeft", "openvino"),
    "onnxruntime": ("onnxruntime", "minmax"),
    "NNCF, in onnxruntime": ("nncf", "onnx"),
    "NNCF, in OpenVINO": ("nncf", "openvino"),
    "Olive": ("olive", "minmax"),
}
THREADS = 2


def quantize(arm: str, task: Path, out: Path) -> dict[str, Any]:
    """Return the arm's file and what making it took, or why there is none."""
    tool, mode = ARMS[arm]
    model = task / ("float.onnx" if tool == "edgeft" else "plain.onnx")
    target = out / "int8" / task.name / tool / mode
    images = len(np.load(task / "calibration.npy", mmap_mode="r"))
    command = [interpreter(tool, out / "venvs"), ARMS_FILE, tool, mode, model, task / "calibration.npy", target]
    command += ["--images", images, "--threads", THREADS]
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        return {"failed": (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]}
    found = json.loads(done.stdout.strip().splitlines()[-1])
    file = next(path for path in (target / "int8.xml", target / "int8.onnx") if path.is_file())
    return {"file": str(file), **{key: found[key] for key in ("seconds", "peak_mb", "version")}}


def interval(ratios: np.ndarray) -> list[float]:
    drawn = np.median(np.random.default_rng(0).choice(ratios, (2000, len(ratios))), axis=1)
    return [float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))]


def measure(task: Path, out: Path, rounds: int) -> dict[str, Any]:
    made = {arm: quantize(arm, task, out) for arm in ARMS}
    files = {arm: row["file"] for arm, row in made.items() if "file" in row}
    answers = out / "answers" / task.name
    answers.mkdir(parents=True, exist_ok=True)
    job = {
        "float": str(task / "float.onnx"),
        "files": files,
        "evaluation": str(task / "evaluation.npz"),
        "out": str(answers),
        "rounds": rounds,
    }
    (answers / "job.json").write_text(json.dumps(job))
    command = [interpreter("nncf", out / "venvs"), Path(__file__).with_name("race.py"), answers / "job.json"]
    raced = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    labels = np.load(task / "evaluation.npz")["labels"]
    expected = np.load(answers / "fp32.npy")
    rows: dict[str, Any] = {"fp32": {"accuracy": float((expected.argmax(1) == labels).mean())}}
    base = np.array(raced["times_ms"]["fp32"])
    for arm, row in made.items():
        if arm not in files:
            rows[arm] = row
            continue
        logits = np.load(answers / f"{arm}.npy")
        ratios = base / np.array(raced["times_ms"][arm])
        rows[arm] = {
            "accuracy": float((logits.argmax(1) == labels).mean()),
            "agreement": float((logits.argmax(1) == expected.argmax(1)).mean()),
            "mean_abs_logit_error": float(np.abs(logits - expected).mean()),
            "speed": float(np.median(ratios)),
            "speed_interval": interval(ratios),
            **{key: row[key] for key in ("seconds", "peak_mb", "version")},
        }
    runtimes = {key: raced[key] for key in ("onnxruntime", "openvino")}
    return {"task": task.name, "n": len(labels), "fp32_ms": float(np.median(base)), "rows": rows, "runtimes": runtimes}


def table(found: list[dict[str, Any]]) -> str:
    lines = [
        "| task | tool | accuracy | drop, points | decisions equal | mean abs logit error | speed | made in |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for item in found:
        base = item["rows"]["fp32"]["accuracy"]
        lines.append(f"| {item['task']}, n = {item['n']} | fp32, {item['fp32_ms']:.2f} ms | {base:.4f} | | | | 1 | |")
        for arm, row in item["rows"].items():
            if arm == "fp32":
                continue
            if "failed" in row:
                lines.append(f"| | {arm} | failed: {row['failed']} | | | | | |")
                continue
            low, high = row["speed_interval"]
            lines.append(
                f"| | {arm} {row['version']} | {row['accuracy']:.4f} | {100 * (base - row['accuracy']):.2f} | "
                f"{row['agreement']:.4f} | {row['mean_abs_logit_error']:.3f} | {row['speed']:.2f}x ({low:.2f} to "
                f"{high:.2f}) | {row['seconds']:.0f} s, {row['peak_mb'] / 1000:.1f} GB |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("tasks", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / "results.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    known = {item["task"]: item for item in map(json.loads, lines)}
    print(json.dumps({"machine": machine(THREADS)}))
    found = []
    for task in args.tasks:
        if task.name not in known:
            print(f"{task.name} ...", file=sys.stderr, flush=True)
            known[task.name] = measure(task, args.out, args.rounds)
            with log.open("a") as file:
                file.write(json.dumps(known[task.name]) + "\n")
        found.append(known[task.name])
    (args.out / "peers.md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()

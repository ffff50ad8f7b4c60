"""A student beside its teacher, over seeds: what it loses, how much faster and smaller what ships is.

    python benchmarks/distill/distilled.py SAMPLE OUT --distill '{student: {layers: 3}, epochs: 6}' [--seeds 0 1 2]
                                                      [--limit 1000] [--baselines without_teacher] [--set KEY=VALUE]

Each run is `edgeft build SAMPLE` with that block and its baselines, into OUT/SEED; what is there already is not run
again. Latency is what the build measures of the shipped file beside the teacher's float graph, ABBA on one thread: keep
the machine quiet. Of three teachers the second and third have the seeds that follow: take seeds as far apart, e.g.
0 3 6, or the runs share teachers and their spread is too small.

Ends with the table over seeds: mean and standard deviation of the test metric of teacher, student without a teacher,
student from random weights, student, and what ships; then what is lost from teacher to what ships, and what the student
gains by its teacher, each with the 95 % interval of its mean (Student's t over seeds).
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from scipy.stats import t as student_t

from edgeft.core import machine

BASELINES = ("from_scratch", "without_teacher")
ARMS = ("teacher", *BASELINES, "student", "ships")


def built(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Build with one seed, or read what an earlier run built; return what its report says of the distillation."""
    folder = args.out / str(seed)
    failed = folder.with_name(f"{folder.name}.failed")
    if not (folder / "report.json").is_file() and not (failed / "report.json").is_file():
        changes = [f"seed={seed}", f"data.limit={args.limit}", f"distill={args.distill}", *args.set]
        beside = f"distill.baselines=[{', '.join(args.baselines)}]"
        sets = [part for change in [*changes, beside] for part in ("--set", change)]
        command = ["-m", "edgeft", "build", args.sample, "--cache", args.out / "cache", "--out", folder, *sets]
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
        if done.returncode not in {0, 5, 6}:
            raise RuntimeError(done.stderr[-2000:])
    record = json.loads(((folder if folder.is_dir() else failed) / "report.json").read_bytes())
    told: dict[str, Any] = record["verify"]["distillation"]
    shipped = record["verify"]["chosen"]
    told["arms"]["ships"] = told["arms"]["student" if shipped == "fp32" else shipped]
    timings = next(stage for stage in record["stages"] if stage["name"] == "distill")["timings"]
    plain = timings["baselines"][args.baselines[-1]]["train_images_per_second"]
    return {**told, "shipped": shipped, "row": plain / timings["train_images_per_second"]}


def spread(values: list[float]) -> str:
    """Return mean and standard deviation in percent."""
    more = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{more}"


def difference(ones: list[float], others: list[float]) -> str:
    """Return the mean over seeds of one - other in points, with its 95 % interval."""
    points = [100 * (one - other) for one, other in zip(ones, others, strict=True)]
    mean = statistics.mean(points)
    if len(points) == 1:
        return f"{mean:.2f} points (one seed)"
    half = float(student_t.ppf(0.975, len(points) - 1)) * statistics.stdev(points) / len(points) ** 0.5
    return f"{mean:.2f} points ({mean - half:.2f} to {mean + half:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--distill", required=True, help="the recipe's block, as YAML in braces")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--limit", default="null", help="data.limit: rows of each class in each split, or {train: 0.25}"
    )
    parser.add_argument(
        "--baselines", nargs="+", choices=BASELINES, default=BASELINES, help="both; of prune_steps from_scratch alone"
    )
    parser.add_argument("--set", action="append", default=[], help="as edgeft build's")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print(json.dumps({"machine": machine.facts()}))
    found = [built(args, seed) for seed in args.seeds]
    print(f"{found[0]['metric']}, {found[0]['n']} test rows, {len(found)} seeds")
    arms = [arm for arm in ARMS if arm in found[0]["arms"]]
    print("| " + " | ".join(arm.replace("_", " ") for arm in arms) + " |")
    print("|" + "---|" * len(arms))
    values = {arm: [each["arms"][arm]["value"] for each in found] for arm in arms}
    print("| " + " | ".join(spread(values[arm]) for arm in arms) + " |")
    sizes = [each["arms"]["teacher"]["size_bytes"] / each["arms"]["ships"]["size_bytes"] for each in found]
    print(f"lost: {difference(values['teacher'], values['ships'])}; {statistics.mean(sizes):.1f} times smaller")
    if "without_teacher" in arms:
        print(f"the student's gain by its teacher: {difference(values['student'], values['without_teacher'])}")
    for seed, each in zip(args.seeds, found, strict=True):
        if told := each.get("latency"):
            faster = told["times_as_fast"]
            low, high = faster["interval"]
            print(f"seed {seed}, {each['shipped']}: {faster['value']:.2f} times ({low:.2f} to {high:.2f}) as fast")
        print(f"seed {seed}: a row takes {each['row']:.2f} times as long with a cached teacher as without one")


if __name__ == "__main__":
    main()

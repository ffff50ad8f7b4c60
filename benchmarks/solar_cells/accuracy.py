"""Accuracy of the solar-cell sample: three block folds, and three random 75/25 splits as in the paper.

The recipe is samples/solar_cells/recipe.yaml as it stands; only the split changes. It was chosen on the random split of
seed 99; the seeds below were drawn after that, and no other has been tried with it. (`cache_limit_mb` was set later; it
changes nothing here: what these splits would cache was above the default limit, too.) Deitsch et al. 2019 report 88.4 %
for an end-to-end CNN on a random 75/25 split; here a tenth of the 75 % is held out as validation data (checkpoint,
choice of candidate), so the model learns from fewer images than theirs did.

The quantizer was improved after the first run of these splits (equalisation, spared tensors); its defaults were chosen
on the logits of split random 10 and on latency. Labels of a test split never decided anything.

The margin is opened wide: 197 validation images cannot certify the recipe's 2 points, and where int8 cannot be
certified fp32 would ship and int8 would not be measured.

    python benchmarks/solar_cells/accuracy.py            # resumable: a finished split is reused
    python benchmarks/solar_cells/accuracy.py --collect  # only print what is there

Writes accuracy.json and accuracy.md beside this file.
"""

import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "samples" / "solar_cells"
WORK = HERE / "work"

SPLITS: dict[str, list[str]] = {
    **{
        f"random {seed}": [
            "data.split.by=image", f"data.split.seed={seed}",
            "data.split.train=0.675", "data.split.val=0.075", "data.split.test=0.25",
        ]
        for seed in range(10, 13)
    },
    **{
        f"blocks {fold}": [
            "data.split.folds=3", f"data.split.fold={fold}",
        ]
        for fold in range(3)
    },
}  # fmt: skip


def _build(name: str, overrides: list[str]) -> None:
    folder = WORK / name.replace(" ", "_")
    command = [sys.executable, "-m", "edgeft", "build", str(RECIPE), "--no-latency", "--json"]
    command += ["--cache", str(WORK / "cache"), "--out", str(folder)]
    overrides = [*overrides, "verify.accuracy.max_drop_pp=20"]
    command += [word for override in overrides for word in ("--set", override)]
    print(f"{name}: {' '.join(overrides)}", flush=True)
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
    if not (folder / "report.json").is_file():
        sys.exit(f"{name}: exit {done.returncode}: {done.stdout.decode()}")


def _row(name: str) -> dict[str, Any] | None:
    report = WORK / name.replace(" ", "_") / "report.json"
    if not report.is_file():
        return None
    record = json.loads(report.read_text())
    verify, hops = record["verify"], record["verify"]["hops"]
    (chosen,) = [key for key in verify["metrics"] if key != "fp32"] or ["fp32"]
    hop = next(hop for hop in hops if hop["name"].startswith("fp32 > "))
    measured = {
        f"{metric} {arm}": verify["metrics"][key][metric]
        for metric in ("accuracy", "balanced_accuracy", "auroc")
        for arm, key in (("fp32", "fp32"), ("int8", chosen))
    }
    return {
        "split": name, "chosen": chosen, "n": verify["n"], **measured,
        "agreement": hop["agreement"], "mean_abs_logit_error": hop["mean_abs_logit_error"],
    }  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> str:
    columns = [key for key in rows[0] if key not in {"split", "chosen", "n"}]
    lines = ["| split | n | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for kind in ("blocks", "random"):
        of_kind = [row for row in rows if row["split"].startswith(kind)]
        lines += [
            f"| {row['split']} | {row['n']} | " + " | ".join(f"{row[c]:.4f}" for c in columns) + " |" for row in of_kind
        ]
        if len(of_kind) > 1:
            series = [[row[c] for row in of_kind] for c in columns]
            spread = [f"**{statistics.mean(values):.4f}** ± {statistics.stdev(values):.4f}" for values in series]
            lines.append(f"| **{kind}, mean ± sd of {len(of_kind)}** | | " + " | ".join(spread) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    if "--collect" not in sys.argv:
        for name, overrides in SPLITS.items():
            if _row(name) is None:
                _build(name, overrides)
    rows = [row for name in SPLITS if (row := _row(name)) is not None]
    if not rows:
        sys.exit("nothing built yet: run without --collect")
    machine = f"{platform.processor() or platform.machine()}, Python {platform.python_version()}"
    (HERE / "accuracy.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    (HERE / "accuracy.md").write_text(_table(rows))
    print(_table(rows))


if __name__ == "__main__":
    main()

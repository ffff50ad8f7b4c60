"""The choose stage: which candidate ships on this device. Reads validation results and pixels; never test.

Among the candidates that hold the margin on validation, float is the one to beat: another ships only if the whole
interval of its latency ratio is below 1, so that the artifact is never slower than float; of several such, the
fastest. The folder holds the choice alone; what was timed stands beside it, so that choosing the same again changes
nothing below.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from edgeft import catalog
from edgeft.core.atomic import write_atomic
from edgeft.core.errors import DataError
from edgeft.core.events import Progress
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.pipeline.stage_configs import ChooseConfig

if TYPE_CHECKING:
    from edgeft.runtime.worker import Timing
    from edgeft.verify.latency import Ratio

__all__ = ["ChooseConfig", "decide", "run", "smallest"]

FP32 = "fp32"
_WARMUP = 3
_MAX_SECONDS = 3.0
_DIGITS = 4


def run(ctx: Context, inputs: Inputs, config: ChooseConfig) -> StageResult:
    """Choose among `inputs["compress"]` with pixels of `inputs["data"]`.

    Raises:
        DataError: an input folder is damaged.
        DeviceError: a timing process failed.
    """
    listed = json.loads((inputs["compress"] / "candidates.json").read_bytes())["candidates"]
    by_name: dict[str, dict[str, Any]] = {item["name"]: item for item in listed}
    if FP32 not in by_name:
        raise DataError(f"{inputs['compress']}: candidates.json has no {FP32} candidate", hint="run the build again")
    holding = [name for name, item in by_name.items() if name == FP32 or item["validation"]["holds_margin"]]
    files = {name: inputs["compress"] / by_name[name]["file"] for name in holding}
    if config.rounds == 0:
        timings = {}
        why = f"{config.target} does not run here" if catalog.exporter(config.target).cross else "rounds: 0"
        chosen, reason = smallest({name: by_name[name]["size_bytes"] for name in holding}, why)
    else:
        timings = _timed(ctx, files, inputs["data"], config) if len(files) > 1 else {}
        margin = f"the margin of {config.max_drop_pp:g} pp {config.metric} on validation"
        chosen, reason = decide(_ratios(timings), margin, alone=len(by_name) == 1)
    write_atomic(ctx.folder / "model.onnx", files[chosen].read_bytes())
    choice: dict[str, Json] = {"schema": 1, "chosen": chosen}
    write_atomic(ctx.folder / "choice.json", json.dumps(choice, indent=1) + "\n")
    notes = [f"{name} loses too much on validation to be chosen" for name in by_name if name not in holding]
    latency: dict[str, Json] = {name: _latency_json(runs) for name, runs in timings.items()}
    return StageResult(ctx.folder, {"chosen": chosen}, tuple(notes), {"reason": reason, "latency": latency})


def _timed(ctx: Context, files: Mapping[str, Path], data: Path, config: ChooseConfig) -> "dict[str, list[Timing]]":
    """Time every candidate in rounds of fresh processes, forth and back in each: A B B A."""
    from edgeft.pipeline.device.place import HERE
    from edgeft.pipeline.timed import own_runtime, timed
    from edgeft.runtime.worker import Request

    fed = timed(data, None, ctx.workspace / "choose_inputs.npz")
    runtime = own_runtime(config.target)
    requests = {
        name: replace(
            fed.model_alone(Request(str(file), config.threads, False, config.samples, _WARMUP, _MAX_SECONDS)),
            exporter=runtime,
        )
        for name, file in files.items()
    }
    runs: dict[str, list[Timing]] = {name: [] for name in files}
    order = [*files, *reversed(list(files))]
    with (ctx.place or HERE).launching(list(requests.values())) as launch:
        for done in range(config.rounds):
            for name in order:
                runs[name].append(launch(requests[name]))
            last = ", ".join(f"{name} {median(of[-1].samples_ms):.2f} ms" for name, of in runs.items())
            ctx.emit(Progress("choose", done + 1, config.rounds, last))
    return runs


def decide(ratios: "Mapping[str, Ratio]", margin: str, *, alone: bool) -> tuple[str, str]:
    """Return the candidate that ships, and why: fp32 unless another is clearly faster.

    Args:
        ratios: latency over fp32's of every other candidate that may ship.
        margin: what those candidates hold, in words; "" where accuracy was not measured.
        alone: whether fp32 is the only candidate there is.
    """
    which = f" that holds {margin}" if margin else ""
    if not ratios:
        why = "it is the only candidate" if alone else f"no other candidate holds {margin}"
        return FP32, f"{FP32} ships because {why}"
    faster = {name: found for name, found in ratios.items() if found.high < 1}
    if not faster:
        tried = ", ".join(
            f"{name} {found.value:.2f} ({found.low:.2f} to {found.high:.2f})" for name, found in ratios.items()
        )
        return FP32, f"{FP32} ships because nothing{which} is clearly faster; latency ratios: {tried}"
    best = min(faster, key=lambda name: faster[name].value)
    found = faster[best]
    holds = f"holds {margin} and " if margin else ""
    return best, (
        f"{best} ships because it {holds}takes {found.value:.2f} times as long as {FP32} "
        f"({found.low:.2f} to {found.high:.2f} over {found.rounds} rounds)"
    )


def smallest(sizes: Mapping[str, int], why_untimed: str) -> tuple[str, str]:
    """Return the smallest of the candidates that may ship, by size in bytes, and the reason."""
    chosen = min(sizes, key=lambda name: sizes[name])
    return chosen, f"{chosen} ships because it is the smallest that may; nothing was timed ({why_untimed})"


def _ratios(timings: "Mapping[str, Sequence[Timing]]") -> "dict[str, Ratio]":
    """Return the latency ratio to fp32 of every other candidate."""
    import numpy as np

    from edgeft.verify.latency import ratio

    medians = {
        name: np.array([median(one.samples_ms) for one in runs]).reshape(-1, 2) for name, runs in timings.items()
    }
    return {name: ratio(medians[FP32], of) for name, of in medians.items() if name != FP32}


def _latency_json(runs: "Sequence[Timing]") -> dict[str, Any]:
    samples = [sample for one in runs for sample in one.samples_ms]
    rounds = [[round(sample, _DIGITS) for sample in one.samples_ms] for one in runs]
    return {"median_ms": median(samples), "rounds_ms": rounds}

"""What quantization-aware training gains, on trained nets: before and after, by rates.

    python benchmarks/quantize/training.py TASK... [--steps 120] [--share 0.35] [--images 1500]     tasks by tasks.py

Starts from the closed form with up to `--share` of the multiplications in float and follows the float graph on images
of the validation split, without their labels; tells error, equal decisions and accuracy on evaluation images.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx

from edgeft import catalog
from edgeft.core import machine
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import logits_of
from edgeft.quantize.qat import QatMethod, tune
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.search import segment_chain
from edgeft.quantize.static import quantize_static, static_method

ARMS = {"as shipped": (0.05, 1e-4), "weights at a fifth": (0.01, 1e-4), "scales at 100 times": (0.05, 1e-2)}
"""Rate of weights in quantization steps, rate of scales relative to their size."""


def measure(task: Path, steps: int, share: float, images: int) -> None:
    """Print the rows of one task."""
    placement, execution = catalog.exporter("onnx").placement, Execution(2)
    graph, calibration = onnx.load(task / "float.onnx"), np.load(task / "calibration.npy")
    known, pool = np.load(task / "evaluation.npz"), np.load(task / "validation.npz")["pixels"]
    rows, labels = ArrayRows("pixels", known["pixels"][:images]), known["labels"][:images]
    expected = logits_of(graph, rows, execution)

    def tell(name: str, model: onnx.ModelProto, seconds: float) -> None:
        found = logits_of(model, rows, execution)
        error = np.abs(found - expected).mean()
        equal, right = (found.argmax(1) == expected.argmax(1)).mean(), (found.argmax(1) == labels).mean()
        print(f"| {task.name} | {name} | {error:.4f} | {equal:.2%} | {right:.2%} | {seconds:.0f} |", flush=True)

    tell("fp32", graph, 0)
    started = time.perf_counter()
    method = static_method("auto", 96, share)
    start = quantize_static(graph, placement, calibration, method, execution=execution)
    tell("none", start.model, time.perf_counter() - started)
    ends = [segment.tensors[-1] for segment in segment_chain(graph, placement) if "logits" not in segment.tensors]
    for name, (rate, scale_rate) in ARMS.items():
        lessons = QatMethod(steps, 16, rate, scale_rate, ("logits", *ends), 2)
        started, rng = time.perf_counter(), np.random.default_rng(0)
        tuned = tune(start.model, start.reference, placement, pool, lessons, rng=rng)
        tell(name, tuned.model, time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--share", type=float, default=0.35)
    parser.add_argument("--images", type=int, default=1500)
    given = parser.parse_args()
    print(machine.facts()["cpu"])
    print("| task | training | mean abs logit error | decisions equal to fp32 | accuracy | seconds |")
    print("|---|---|---|---|---|---|")
    for task in given.tasks:
        measure(task, given.steps, given.share, given.images)


if __name__ == "__main__":
    main()

"""Does AdaRound beat GPTQ? The same grids, inputs and biases, three ways to round, on trained nets.

    python benchmarks/quantize/rounding.py TASK... [--steps 1000] [--only gptq]      tasks by tasks.py

Everything but the rounding is edgeft's: equalisation, ranges, scales under the pair rule, weights that follow the float
graph, biases corrected in the ordered sweep, nothing left in float. `nearest` keeps what the scale search rounded,
`gptq` is what ships, `adaround` learns for each weight whether it goes up or down (Nagel et al. 2020, equations 21 to
25, Adam, on the exact expected error e^T cov(x) e instead of samples), ends with the pair rule's repair, and keeps a
channel's nearest rounding where it is no better. Tells the logit error, equal decisions and seconds of the whole
quantization, two threads.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch

from edgeft import catalog
from edgeft.core import machine
from edgeft.quantize import sweep
from edgeft.quantize.affine import Doubles
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import logits_of
from edgeft.quantize.gptq import gptq, output_error
from edgeft.quantize.pair_rule import repair
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.static import quantize_static, static_method
from edgeft.quantize.weights import IntegerMatrix

ZETA, GAMMA, WEIGHT, RATE, WARM_UP = 1.1, -0.1, 0.01, 0.01, 0.2
Round = Callable[..., IntegerMatrix]


def adaround(steps: int) -> Round:
    def rounded(matrix: Doubles, covariance: Doubles, start: IntegerMatrix, *, pair_safe: bool) -> IntegerMatrix:
        scale = torch.from_numpy(start.scale.astype(np.float32))[..., None]
        target = torch.from_numpy(matrix.astype(np.float32)) / scale
        cov = torch.from_numpy(covariance.astype(np.float32))
        low = target.floor().clamp(-127, 126)
        share = (target - low).clamp(0.01, 0.99)
        latent = (-torch.log((ZETA - GAMMA) / (share - GAMMA) - 1)).requires_grad_()
        unit = float(output_error(matrix, start.real, covariance).mean()) or 1.0
        optimizer = torch.optim.Adam([latent], lr=RATE)
        for step in range(steps):
            up = (torch.sigmoid(latent) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
            error = (low + up - target) * scale
            loss = ((error @ cov) * error).sum(-1).mean() / unit
            progress = max(0.0, (step / steps - WARM_UP) / (1 - WARM_UP))
            if progress > 0:
                beta = 2 + 18 * 0.5 * (1 + np.cos(np.pi * progress))
                loss = loss + WEIGHT * (1 - (2 * up - 1).abs().pow(beta)).mean(dim=(0, 1)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        integers = (low + (latent >= 0)).clamp(-127, 127).detach().numpy().astype(np.float64)
        if pair_safe:
            importance = np.diagonal(covariance, axis1=-2, axis2=-1)[:, None, :]
            integers = repair(integers, matrix / start.scale[..., None], importance)
        found = IntegerMatrix(integers.astype(np.int8), start.scale)
        worse = output_error(matrix, found.real, covariance) > output_error(matrix, start.real, covariance)
        return IntegerMatrix(np.where(worse[..., None], start.values, found.values), start.scale)

    return rounded


def nearest(_matrix: Doubles, _covariance: Doubles, start: IntegerMatrix, *, pair_safe: bool) -> IntegerMatrix:
    del pair_safe
    return start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=("nearest", "gptq", "adaround"))
    given = parser.parse_args()
    print(machine.facts()["cpu"])
    placement, method = catalog.exporter("onnx").placement, static_method("gptq", 96, 0.0)
    roundings: dict[str, Round] = {"nearest": nearest, "gptq": gptq, "adaround": adaround(given.steps)}
    print("| task | rounding | mean abs logit error | decisions equal to fp32 | made in |\n|---|---|---|---|---|")
    torch.set_num_threads(2)
    for task in given.tasks:
        graph, calibration = onnx.load(task / "float.onnx"), np.load(task / "calibration.npy")
        rows = ArrayRows("pixels", np.load(task / "evaluation.npz")["pixels"])
        expected = logits_of(graph, rows, Execution(2))
        for name, rounding in roundings.items():
            if given.only and name not in given.only:
                continue
            sweep.gptq = rounding
            started = time.perf_counter()
            made = quantize_static(graph, placement, calibration, method, execution=Execution(2))
            seconds = time.perf_counter() - started
            found = logits_of(made.model, rows, Execution(2))
            agreement = (found.argmax(1) == expected.argmax(1)).mean()
            error = np.abs(found - expected).mean()
            print(f"| {task.name} | {name} | {error:.4f} | {agreement:.2%} | {seconds:.0f} s |", flush=True)


if __name__ == "__main__":
    main()

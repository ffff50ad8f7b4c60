"""int8 of a solar-cell classifier: edgeft against onnxruntime's own quantizer, on the same float graph and images.

    python benchmarks/quantize/solar_cells.py GRAPH.onnx DATA_FOLDER [--calibrate 256] [--rounds 8] [--json OUT]

GRAPH is an export stage's model.onnx, DATA_FOLDER a data stage's folder (both lie in a build's store). Calibrates on
train, compares on val and test together with float. The peer is `quantize_static(reduce_range, per_channel, MinMax)`,
the setting that is exact on CPUs without VNNI. CPU time of one inference is measured with the two graphs taking turns.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization as ort_quantization

from edgeft import catalog
from edgeft.data.dataset import Dataset
from edgeft.graph.execute import open_session
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import logits_of
from edgeft.quantize.proof import count_unsafe_pairs
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.stage import calibration_pixels
from edgeft.quantize.static import quantize_static, static_method

EXECUTION = Execution(threads=2)


class Reader(ort_quantization.CalibrationDataReader):
    """Feeds calibration images one by one."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._images = iter(pixels)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"pixels": image[None]}


def peer(graph: Path, pixels: np.ndarray, *, reduce_range: bool) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        ort_quantization.quantize_static(
            graph,
            out,
            Reader(pixels),
            quant_format=ort_quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
        )
        return onnx.load(out)


def cpu_ms(a: onnx.ModelProto, b: onnx.ModelProto, pixels: np.ndarray, rounds: int) -> tuple[float, float]:
    """Return the median CPU milliseconds of one image through `a` and `b`, in ABBA order."""
    sessions = [open_session(model, 1) for model in (a, b)]
    samples: list[list[float]] = [[], []]
    for index in range(rounds + 1):
        for arm in (0, 1, 1, 0):
            start = time.thread_time()
            for image in pixels[:10]:
                sessions[arm].run(None, {"pixels": image[None]})
            if index:  # the first round warms up
                samples[arm].append((time.thread_time() - start) / len(pixels[:10]) * 1e3)
    return float(np.median(samples[0])), float(np.median(samples[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--calibrate", type=int, default=256)
    parser.add_argument("--bias", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="variants whose name holds this text")
    args = parser.parse_args()
    data = Dataset.open(args.data)
    float_model = onnx.load(args.graph)
    calibration = calibration_pixels(data, args.calibrate, 0)
    rows = np.concatenate([data.indices("val"), data.indices("test")])
    pixels, labels = np.ascontiguousarray(data.pixels[rows]), data.labels[rows]
    expected = logits_of(float_model, ArrayRows("pixels", pixels), EXECUTION)
    placement = catalog.exporter("onnx").placement
    runs: dict[str, Any] = {
        name: lambda name=name: (
            quantize_static(
                float_model, placement, calibration, static_method(name, args.bias), execution=EXECUTION
            ).model
        )
        for name in ("minmax", "mse", "gptq")
    }
    runs["onnxruntime, reduce_range"] = lambda: peer(args.graph, calibration, reduce_range=True)
    runs["onnxruntime, full range"] = lambda: peer(args.graph, calibration, reduce_range=False)
    found = []
    print(f"{len(rows)} images, fp32 accuracy {(expected.argmax(1) == labels).mean():.4f}")
    for name, run in runs.items():
        if args.only and args.only not in name:
            continue
        start, cpu = time.perf_counter(), time.process_time()
        model = run()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        logits = logits_of(model, ArrayRows("pixels", pixels), EXECUTION)
        float_ms, int8_ms = cpu_ms(float_model, model, pixels, args.rounds)
        row = {
            "variant": name,
            "agreement": float((logits.argmax(1) == expected.argmax(1)).mean()),
            "mean_abs_logit_error": float(np.abs(logits - expected).mean()),
            "accuracy": float((logits.argmax(1) == labels).mean()),
            "unsafe_pairs": count_unsafe_pairs(model),
            "speed_ratio": float_ms / int8_ms,
            "int8_cpu_ms": int8_ms,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }
        found.append(row)
        print(
            f"{name:28s} agree {row['agreement']:.4f}  logit error {row['mean_abs_logit_error']:.4f}  "
            f"accuracy {row['accuracy']:.4f}  unsafe {row['unsafe_pairs']:6d}  {row['speed_ratio']:.2f}x fp32  "
            f"{seconds:.0f} s ({cpu_seconds:.0f} CPU), {row['peak_rss_gb']:.2f} GB",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps({"n": len(rows), "variants": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()

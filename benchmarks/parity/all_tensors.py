"""What comparing all tensors of two graphs costs: time beside plain inference of both, and peak memory by images.

    python benchmarks/parity/all_tensors.py BASE.onnx NEW.onnx PIXELS.npy [--images 32 256] [--threads 1]

Each number of images is a fresh process; within it plain inference of both graphs (onnxruntime, --threads intra-op
threads, no tensor tapped) comes before and after the comparison, and the ratio is to the mean of the two.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx

from edgeft.core import machine
from edgeft.graph.execute import open_session
from edgeft.parity.layers import drift
from edgeft.quantize.rows import ArrayRows


def plain(models: list[onnx.ModelProto], pixels: np.ndarray, threads: int) -> float:
    sessions = [open_session(model, threads) for model in models]
    name = models[0].graph.input[0].name
    for session in sessions:
        session.run(None, {name: pixels[:1]})
    began = time.perf_counter()
    for index in range(len(pixels)):
        for session in sessions:
            session.run(None, {name: pixels[index : index + 1]})
    return time.perf_counter() - began


def one(base: Path, new: Path, data: Path, images: int, threads: int) -> dict[str, float]:
    models = [onnx.load(path) for path in (base, new)]
    pixels = np.load(data, mmap_mode="r")[:images]
    before = plain(models, pixels, threads)
    began = time.perf_counter()
    drift(*models, ArrayRows(models[0].graph.input[0].name, pixels), threads)
    seconds = time.perf_counter() - began
    after = plain(models, pixels, threads)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"images": len(pixels), "seconds": seconds, "ratio": seconds / ((before + after) / 2), "peak_mb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("pixels", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.base, args.new, args.pixels, args.images[0], args.threads)))
        return
    print(json.dumps({"machine": machine.facts(), "threads": args.threads}))
    for images in args.images:
        command = [sys.executable, __file__, args.base, args.new, args.pixels, "--one", "--images", str(images)]
        command += ["--threads", str(args.threads)]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        print(done.stdout.strip())


if __name__ == "__main__":
    main()

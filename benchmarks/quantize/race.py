"""What int8 files of several tools answer and how long they take: run by peers.py in the environment of NNCF.

    python race.py JOB.json        {float, files: {name: path}, evaluation, out, rounds, speed}

Writes the logits of each file, float32 [N, K], to OUT/NAME.npy, and prints one JSON line: the milliseconds of each file
by round. A .xml runs in OpenVINO, all else in onnxruntime; one thread, batch 1 for timings, files take turns forth and
back.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import openvino

BATCH, PER_ROUND = 32, 5
Run = Callable[[np.ndarray], np.ndarray]


def open_file(name: str, path: Path) -> Run:
    if path.suffix == ".xml":
        config = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        if name.startswith("edgeft"):  # as its session runs it; OpenVINO's default is bfloat16 on CPUs that have it
            config["INFERENCE_PRECISION_HINT"] = "f32"
        compiled = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", config)
        return lambda x: compiled([x])[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    files = {"fp32": Path(job["float"]), **{name: Path(path) for name, path in job["files"].items()}}
    runs = {name: open_file(name, path) for name, path in files.items()}
    pixels = np.load(job["evaluation"])["pixels"]
    out = Path(job["out"])
    out.mkdir(parents=True, exist_ok=True)
    for name, run in runs.items():
        parts = [np.array(run(pixels[start : start + BATCH])) for start in range(0, len(pixels), BATCH)]
        np.save(out / f"{name}.npy", np.concatenate(parts))
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = [*runs, *reversed(list(runs))]
    for number in range(job["rounds"] + 1):
        samples: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(PER_ROUND):
            for name in order:
                image = pixels[number % len(pixels)][None]
                started = time.perf_counter_ns()
                runs[name](image)
                samples[name].append((time.perf_counter_ns() - started) / 1e6)
        if number:  # the first round warms up
            for name, of in samples.items():
                times[name].append(float(np.median(of)))
    print(json.dumps({"times_ms": times, "onnxruntime": onnxruntime.__version__, "openvino": openvino.__version__}))


if __name__ == "__main__":
    main()

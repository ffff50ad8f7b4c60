"""What onnxruntime's session options are worth, and what a saved optimised graph would save.

    python benchmarks/targets/session_options.py MODEL.onnx...

Options run in turns on one input of noise, forth and back; the ratio is to what edgeft uses. Loading is from a file in
memory, once optimised by the runtime and once saved optimised.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edgeft.core import machine
from edgeft.runtime.session import session_options

ROUNDS, EACH = 40, 5
LEVELS = ort.GraphOptimizationLevel


def options(*, threads: int = 1, spinning: bool = False, **changes: Any) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    made = session_options(threads, spinning=spinning)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


ARMS: dict[str, dict[str, Any]] = {
    "as edgeft": {},
    "the same again": {},
    "no arena": {"enable_cpu_mem_arena": False},
    "no memory pattern": {"enable_mem_pattern": False},
    "no blocked layout": {"graph_optimization_level": LEVELS.ORT_ENABLE_EXTENDED},
    "2 threads": {"threads": 2},
    "2 threads that spin": {"threads": 2, "spinning": True},
}


def opened(model: Path, made: Any) -> ort.InferenceSession:  # noqa: ANN401 - the same
    return ort.InferenceSession(model.read_bytes(), made, providers=["CPUExecutionProvider"])


def noise(session: ort.InferenceSession) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    (item,) = session.get_inputs()
    sizes = [size if isinstance(size, int) else 1 for size in item.shape]
    return {item.name: rng.integers(0, 256, sizes).astype({"tensor(uint8)": np.uint8}.get(item.type, np.float32))}


def timed(session: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> float:
    samples = []
    for _ in range(EACH):
        began = time.perf_counter()
        session.run(None, feeds)
        samples.append((time.perf_counter() - began) * 1e3)
    return statistics.median(samples)


def raced(model: Path) -> None:
    sessions = {name: opened(model, options(**changes)) for name, changes in ARMS.items()}
    feeds = noise(sessions["as edgeft"])
    for session in sessions.values():
        timed(session, feeds)
    found: dict[str, list[float]] = {name: [] for name in ARMS}
    for index in range(ROUNDS):
        for name in list(ARMS) if index % 2 else list(ARMS)[::-1]:
            found[name].append(timed(sessions[name], feeds))
    print(f"{model.name}\n| | ms | ratio |\n|---|---|---|")
    for name, values in found.items():
        ratio = statistics.median(a / b for a, b in zip(values, found["as edgeft"], strict=True))
        print(f"| {name} | {statistics.median(values):.2f} | {ratio:.2f} |")


def loaded(model: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "optimised.onnx"
        opened(model, options(optimized_model_filepath=str(saved)))
        spent: dict[str, list[float]] = {"optimised as it loads": [], "saved optimised": []}
        for _ in range(ROUNDS // 2):
            for name, file, changes in (
                ("optimised as it loads", model, {}),
                ("saved optimised", saved, {"graph_optimization_level": LEVELS.ORT_DISABLE_ALL}),
            ):
                began = time.perf_counter()
                opened(file, options(**changes))
                spent[name].append((time.perf_counter() - began) * 1e3)
    print("load: " + ", ".join(f"{name} {statistics.median(values):.0f} ms" for name, values in spent.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    models = parser.parse_args().models
    print(json.dumps({"machine": machine.facts(), "onnxruntime": ort.__version__}))
    for model in models:
        raced(model)
        loaded(model)


if __name__ == "__main__":
    main()

"""Every target and precision, by network: what it loses, how fast it is, how large, how long it takes to make.

    python benchmarks/targets/targets.py OUT [--nets resnet18 minilm] [--trained NAME=FP32.onnx,CALIB.npz,EVAL.npz]

Networks by name have random weights and are calibrated on noise: their speed and size are told, their accuracy is not.
A trained one loses what `edgeft quantize --eval` says, in percentage points with its interval. Each file is made by
`edgeft quantize --target T` in a process of its own; what OUT holds is not made again. Then all files of a network take
turns in one process, forth and back, one thread, batch 1, each in its target's own runtime; the ratio is the median
over rounds of float's time in onnxruntime over the file's, with a bootstrap interval. Beside them onnxruntime's own
quantizer (U8S8, per channel, reduce_range, min-max) in onnxruntime, and NNCF (its defaults; of texts, its model type
for transformers) in OpenVINO, in an environment of its own below OUT/venvs; both run as edgeft's files do, float parts
in float32. Keep the machine quiet. What does not run here has no speed.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from edgeft import catalog
from edgeft.core import machine

sys.path.insert(0, str(Path(__file__).parents[1] / "quantize"))
import speed
from calibration import interpreter

NETS = ("resnet18", "mobilenetv2_100", "tf_efficientnet_lite0", "mobilenetv3_large_100", "minilm")
TARGETS = ("onnx", "onnx-arm64", "openvino", "tensorrt")
PRECISIONS = ("int8", "fp16")
SEARCHED = ("int8 --search",)
IMAGES, PER_ROUND = 32, 5


def random_net(name: str, folder: Path) -> None:
    """Write a network with random weights, and noise to calibrate it on."""
    if (folder / "eval.npz").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(speed.float_graph(name), folder / "fp32.onnx")
    rng = np.random.default_rng(0)
    session = ort.InferenceSession(folder / "fp32.onnx", providers=["CPUExecutionProvider"])
    for file, rows in (("calib", IMAGES), ("eval", speed.UNSEEN)):
        fed = {item.name: speed_input(item, rows, rng) for item in session.get_inputs()}
        np.savez(folder / f"{file}.npz", **fed)


def speed_input(item: Any, rows: int, rng: np.random.Generator) -> np.ndarray:  # noqa: ANN401 - onnxruntime ships no types
    sizes = [size if isinstance(size, int) else speed.TOKENS for size in item.shape[1:]]
    if item.type == "tensor(uint8)":
        return rng.integers(0, 256, (rows, *sizes), dtype=np.uint8)
    if item.type == "tensor(int64)":
        return np.ones((rows, *sizes), np.int64)
    return rng.standard_normal((rows, *sizes)).astype(np.float32)


def made(folder: Path, target: str, precision: str) -> dict[str, Any]:
    """Quantize, or read what was made; return what the table tells of it."""
    out = folder / f"{target}-{precision.replace(' --', '-')}"
    searched, precision = precision in SEARCHED, precision.partition(" ")[0]
    if not (out / "report.json").is_file():
        method = ["--search"] if searched else [] if precision == "int8" else ["--method", precision]
        given = ["--calib", folder / "calib.npz", "--eval", folder / "eval.npz", "--max-drop-pp", 5]
        command = ["-m", "edgeft", "quantize", folder / "fp32.onnx", *given, "--target", target, "--out", out]
        command += [*method, "--no-latency", "--json"]
        done = subprocess.run(list(map(str, [sys.executable, *command])), capture_output=True, text=True, check=False)
        if not (out / "report.json").is_file():
            return {"failed": json.loads(done.stdout or "{}").get("message") or done.stderr.strip()[-200:]}
    record = json.loads((out / "report.json").read_bytes())
    item = next(each for each in record["candidates"]["candidates"] if each["name"] == precision)
    lowered = out / "bench"
    exporter = catalog.exporter(target)
    if not lowered.is_dir():
        lowered.mkdir()
        exporter.lower(out / item["file"], lowered)
    return {
        "file": lowered / "model.onnx",
        "cross": exporter.cross,
        "validation": item["validation"],
        "mb": sum(path.stat().st_size for path in lowered.iterdir() if path.suffix != ".xml") / 1e6
        if target != "openvino"
        else (lowered / "model.bin").stat().st_size / 1e6,
        "seconds": record["seconds"],
        "unexpected": sum(not finding["expected"] for finding in record["lint"]),
    }


def peer(folder: Path) -> Path:
    """Write onnxruntime's own int8 file, as its documentation says for CPUs without VNNI."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    out = folder / "onnxruntime.onnx"
    if out.is_file():
        return out
    rows = dict(np.load(folder / "calib.npz"))

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            count = len(next(iter(rows.values())))
            self._rows = iter([{name: array[i : i + 1] for name, array in rows.items()} for i in range(count)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._rows, None)

    ready = folder / "ready.onnx"
    quant_pre_process(str(folder / "fp32.onnx"), str(ready), skip_symbolic_shape=True)
    if any(node.op_type == "Conv" for node in onnx.load(ready).graph.node):
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(str(ready), str(out), Reader(), QuantFormat.QDQ, per_channel=True, reduce_range=True, **types)
    else:
        quantize_dynamic(str(ready), str(out), per_channel=True, reduce_range=True)
    return out


def nncf(folder: Path, venvs: Path) -> Path:
    """Write NNCF's int8 file for OpenVINO."""
    out = folder / "nncf.xml"
    if not out.is_file():
        given = [folder / "fp32.onnx", folder / "calib.npz", out]
        command = [interpreter("nncf", venvs), Path(__file__).with_name("nncf_file.py"), *given]
        subprocess.run(command, check=True, capture_output=True)
    return out


def points_lost(folder: Path, run: Any, base: Any) -> str:  # noqa: ANN401 - sessions
    """Return how many points `run` loses beside `base` on evaluation rows with labels, and decisions that change."""
    rows = dict(np.load(folder / "eval.npz"))
    labels = rows.pop("labels", None)
    if labels is None:
        return ""
    count = len(labels)
    feeds = [{name: array[index : index + 1] for name, array in rows.items()} for index in range(count)]
    own, true = (np.array([np.asarray(each(fed)[0]).argmax() for fed in feeds]) for each in (run, base))
    drop = 100 * ((true == labels).mean() - (own == labels).mean())
    return f"{drop:+.1f}, {(own != true).sum()} of {count} decisions changed"


def race(folder: Path, arms: dict[str, Any], rounds: int) -> dict[str, tuple[float, float, float, float]]:
    """Return by arm the median ms, and the ratio of float's time over it with its interval."""
    rows = dict(np.load(folder / "eval.npz"))
    rows.pop("labels", None)
    count = len(next(iter(rows.values())))
    times: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        feeds = {name: array[number % count][None] for name, array in rows.items()}
        samples: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(PER_ROUND):
            for name in [*arms, *reversed(list(arms))]:
                began = time.perf_counter_ns()
                arms[name](feeds)
                samples[name].append((time.perf_counter_ns() - began) / 1e6)
        if number:  # the first round warms up
            for name, of in samples.items():
                times[name].append(float(np.median(of)))
    base = np.array(times["fp32"])
    found = {}
    for name, values in times.items():
        ratios = base / np.array(values)
        drawn = np.median(np.random.default_rng(0).choice(ratios, (2000, len(ratios))), axis=1)
        low, high = (float(np.quantile(drawn, q)) for q in (0.025, 0.975))
        found[name] = (float(np.median(values)), float(np.median(ratios)), low, high)
    return found


def lost(row: dict[str, Any]) -> str:
    block = row["validation"]
    if "drop_pp" not in block:
        return "random weights"
    low, high = block["drop_interval_pp"]
    return f"{block['drop_pp']:+.1f} ({low:+.1f} to {high:+.1f})"


def told(name: str, folder: Path, venvs: Path, rounds: int, *, search: bool) -> None:
    """Print a network's table."""
    rows = {(t, p): made(folder, t, p) for t in TARGETS for p in PRECISIONS}
    if search:
        rows |= {(t, p): made(folder, t, p) for t in TARGETS if not catalog.exporter(t).cross for p in SEARCHED}
    arms = {"fp32": catalog.exporter("onnx").session(folder / "fp32.onnx", 1)}
    peers = {
        "onnxruntime's quantizer": catalog.exporter("onnx").session(peer(folder), 1),
        "NNCF, in OpenVINO": catalog.exporter("openvino").session(nncf(folder, venvs), 1),
    }
    arms |= peers
    for (target, precision), row in rows.items():
        if "file" in row and not row["cross"]:
            arms[f"{target} {precision}"] = catalog.exporter(target).session(row["file"], 1)
    timed = race(folder, arms, rounds)
    print(f"\n{name}: float {timed['fp32'][0]:.2f} ms, {(folder / 'fp32.onnx').stat().st_size / 1e6:.1f} MB")
    print("| target | precision | lost, points | ms | times as fast as float | MB | made in | float, not by design |")
    print("|---|---|---|---|---|---|---|---|")
    for (target, precision), row in rows.items():
        if "failed" in row:
            print(f"| {target} | {precision} | {row['failed'][:90]} | | | | | |")
            continue
        ms, ratio, low, high = timed.get(f"{target} {precision}", (0.0, 0.0, 0.0, 0.0))
        fast = f"{ms:.2f} | {ratio:.2f} ({low:.2f} to {high:.2f})" if ms else "unverified on hardware |"
        print(
            f"| {target} | {precision} | {lost(row)} | {fast} | {row['mb']:.1f} | {row['seconds']:.0f} s "
            f"| {row['unexpected']} |"
        )
    for tool, run in peers.items():
        ms, ratio, low, high = timed[tool]
        loses = points_lost(folder, run, arms["fp32"])
        print(f"| {tool} | int8 | {loses} | {ms:.2f} | {ratio:.2f} ({low:.2f} to {high:.2f}) | | | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--nets", nargs="*", default=list(NETS))
    parser.add_argument("--trained", nargs="*", default=[], metavar="NAME=FP32,CALIB,EVAL")
    parser.add_argument(
        "--search", nargs="*", default=["mobilenetv3_large_100"], help="which to search segments of, too"
    )
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    print(json.dumps({"machine": machine.facts(), "onnxruntime": ort.__version__}))
    for name in args.nets:
        random_net(name, args.out / name)
        told(name, args.out / name, args.out / "venvs", args.rounds, search=name in args.search)
    for text in args.trained:
        name, _, files = text.partition("=")
        folder = args.out / name
        folder.mkdir(parents=True, exist_ok=True)
        for target, source in zip(("fp32.onnx", "calib.npz", "eval.npz"), files.split(","), strict=True):
            (folder / target).write_bytes(Path(source).read_bytes())
        told(name, folder, args.out / "venvs", args.rounds, search=name in args.search)


if __name__ == "__main__":
    main()

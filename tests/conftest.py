"""A task small enough to work out by hand: which of three colours is an image? Its graph, data folder and bundle."""

import io
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

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
        rows.append({**row, "split": split, "sha256": sha256(data).hexdigest()})
        image = Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        pixels.append(np.asarray(image))
    np.save(folder / "pixels.npy", np.stack(pixels))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = {"schema": 1, "task": "image_classification", "classes": list(CLASSES), "ok_class": "green"}
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
def tiny_bundle(tmp_path: Path, tiny_data: Path, tiny_images: Path, tiny_graph: Path) -> Path:
    from edgeft.bundle.licenses import license_of
    from edgeft.bundle.pack import Parts, pack
    from edgeft.core.record import Gate, Verdict

    gate = Gate("accuracy", Verdict.PASS, 0.1, (-0.5, 0.7), 2.0, "pp", 36, "drop on the test split", 5)
    parts = Parts(
        name="tiny",
        target="onnx",
        precision="fp32",
        model=tiny_graph,
        data=tiny_data,
        images=tiny_images,
        gates=(gate,),
        measurements={"fp32_accuracy": 1.0},
        licenses=(license_of("data", "./images"),),
        report_html="<!doctype html><title>tiny</title>",
        report_json={"schema": 1, "status": "passed"},
        model_card="# tiny\n",
        run={"started": "2024-01-01T00:00:00Z", "seconds": 1.5},
    )
    pack(tmp_path / "dist" / "tiny", parts)
    return tmp_path / "dist" / "tiny"

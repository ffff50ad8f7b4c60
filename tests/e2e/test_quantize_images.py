"""A classifier exported by torch, quantized on image folders: labelled, unlabelled, float and uint8 inputs."""

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import CliRunner

from edgeft.cli.main import app

RUNNER = CliRunner()
SIDE = 32
LEVELS = {"dark": 40, "light": 200}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small net of torch that tells dark from light, as torch's exporter writes it."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=8),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    ).eval()
    with torch.no_grad():
        ends = net(torch.stack([torch.full((3, SIDE, SIDE), (level - 128) / 64.0) for level in LEVELS.values()]))
        slope = ends[1] - ends[0]
        sign = torch.sign(slope[1] - slope[0])
        net[-1].weight.mul_(20 * sign)
        net[-1].bias.mul_(20 * sign).sub_(20 * sign * ends.mean(dim=0))
    path = tmp_path_factory.mktemp("torch") / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's warnings are about its own internals
        program = torch.onnx.export(
            net,
            (torch.zeros(2, 3, SIDE, SIDE),),
            dynamo=True,
            opset_version=18,
            input_names=["image"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            verbose=False,
        )
    assert program is not None
    program.save(path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, level in LEVELS.items():
        (root / name).mkdir()
        for index in range(30):
            pixels = np.clip(rng.normal(level, 15, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def run(*arguments: object) -> dict[str, object]:
    result = RUNNER.invoke(app, ["quantize", *map(str, arguments), "--no-latency", "--json"])
    assert result.exit_code == 0, result.stderr
    answer: dict[str, object] = json.loads(result.stdout)
    return answer


def test_class_folders_measure_accuracy(exported: Path, images: Path, tmp_path: Path) -> None:
    data = ["--calib", images, "--eval", images, "--mean", "128", "--std", "64,64,64", "--images", "20"]
    answer = run(exported, *data, "--max-drop-pp", "10", "--out", tmp_path / "out")
    assert answer["status"] == "passed"
    fp32, int8 = answer["candidates"]
    assert fp32["validation"]["value"] == 1.0
    assert int8["validation"]["agreement"] == 1.0
    assert int8["unsafe_pairs"] == 0


def test_a_flat_folder_calibrates_alone(exported: Path, images: Path, tmp_path: Path) -> None:
    answer = run(exported, "--calib", images / "dark", "--mean", "128", "--std", "64", "--out", tmp_path / "out")
    assert "accuracy was not measured" in str(answer["verdict"])


def test_a_pixel_input_needs_no_normalisation(exported: Path, images: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    graph = model.graph
    graph.input[0].name = "pixels"
    graph.input[0].type.CopyFrom(helper.make_tensor_type_proto(TensorProto.UINT8, ["N", SIDE, SIDE, 3]))
    first = [
        helper.make_node("Transpose", ["pixels"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["wide", "pixel_mean"], ["centred"]),
        helper.make_node("Div", ["centred", "pixel_std"], ["image"]),
    ]
    nodes = [*first, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    for name, value in (("pixel_mean", 128.0), ("pixel_std", 64.0)):
        graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    onnx.save(model, tmp_path / "pixels.onnx")
    data = ["--calib", images, "--eval", images, "--max-drop-pp", "10"]
    answer = run(tmp_path / "pixels.onnx", *data, "--out", tmp_path / "out")
    assert answer["candidates"][1]["validation"]["agreement"] == 1.0

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgeft.core.errors import DataError, EdgeftError
from edgeft.core.stage import Context
from edgeft.graph.config import ExportConfig
from edgeft.graph.execute import open_session
from edgeft.graph.export import build, run
from edgeft.graph.load import load
from edgeft.graph.taps import with_outputs
from edgeft.graph.trace import trace
from edgeft.models import checkpoint, predict
from edgeft.runtime.preprocess import InputContract

_CONTRACT = InputContract(
    height=32, width=40, resize="squash", resize_to=None, filter="bicubic", mean=(127.0,) * 3, std=(128.0,) * 3
)
_PIXELS = np.random.default_rng(0).integers(0, 256, (6, 32, 40, 3), dtype=np.uint8)


class Classifier(nn.Module):
    """What mobile nets are made of: strided and depthwise convolutions, BatchNorm, Relu6, residual, mean, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 2, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.depthwise(x)
        logits: torch.Tensor = self.head(self.dropout(x.mean((2, 3))))
        return logits


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    module = Classifier()
    for norm in (child for child in module.modules() if isinstance(child, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.running_mean)
        nn.init.normal_(norm.bias)
    return module.eval()


@pytest.fixture(scope="module")
def model(module: nn.Module) -> onnx.ModelProto:
    return build(module, _CONTRACT, 20)[0]


def torch_logits(module: nn.Module, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return module((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - 127) / 128).numpy()


def test_the_graph_holds_what_can_be_fused_and_nothing_else(model: onnx.ModelProto) -> None:
    assert [node.op_type for node in model.graph.node] == [
        *("Transpose", "DequantizeLinear", "Conv", "Clip", "Conv", "Relu", "Add"),
        *("GlobalAveragePool", "Flatten", "Gemm", "Div", "Softmax"),
    ]


@pytest.mark.parametrize("count", [1, 2, 6])
def test_logits_equal_torch_at_any_batch_size(module: nn.Module, model: onnx.ModelProto, count: int) -> None:
    session = open_session(with_outputs(model, ["logits"]), threads=1)
    scores, logits = session.run(["scores", "logits"], {"pixels": _PIXELS[:count]})
    expected = torch_logits(module, _PIXELS[:count])
    # float32 sums of at most 27 products, five layers deep
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(scores, torch.from_numpy(expected).softmax(1).numpy(), atol=1e-5)


def test_layers_keep_their_module_names(model: onnx.ModelProto) -> None:
    names = [node.name for node in model.graph.node]
    assert names[2:] == [
        *("stem.0", "stem.0/Clip", "depthwise.1", "depthwise.1/Relu", "stem.0/Add", "stem.0/GlobalAveragePool"),
        *("stem.0/Flatten", "head", "logits/Div", "scores"),
    ]


def test_only_the_batch_size_is_open(model: onnx.ModelProto) -> None:
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info)
    }
    for constant in model.graph.initializer:
        shapes.pop(constant.name, None)
    assert shapes["pixels"] == ["N", 32, 40, 3]
    assert shapes["scores"] == ["N", 3]
    assert len(shapes) == len(model.graph.node) + 1
    assert all(sizes[0] == "N" and all(isinstance(size, int) for size in sizes[1:]) for sizes in shapes.values())


def test_a_second_build_has_the_same_bytes_and_no_path(module: nn.Module, model: onnx.ModelProto) -> None:
    again = build(module, _CONTRACT, 20)[0].SerializeToString(deterministic=True)
    assert again == model.SerializeToString(deterministic=True)
    assert b".py" not in again
    assert str(Path(__file__).parents[3]).encode() not in again


def test_the_module_keeps_its_layout(module: nn.Module) -> None:
    weight = next(module.parameters())
    module.to(memory_format=torch.channels_last)
    strides = weight.stride()
    trace(module, 32, 40, 20)
    assert next(module.parameters()).stride() == strides


def test_a_module_in_training_mode_is_refused(module: nn.Module) -> None:
    module.train()
    try:
        with pytest.raises(EdgeftError, match="training mode"):
            build(module, _CONTRACT, 20)
    finally:
        module.eval()


def test_a_module_that_torch_cannot_export_is_named() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    with pytest.raises(EdgeftError, match="cannot export Branching at opset 20"):
        build(Branching().eval(), _CONTRACT, 20)


def write_inputs(folder: Path, module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Write a data folder with two train, two val and two test rows; the checkpoint loads as `module`."""
    data = folder / "data"
    data.mkdir()
    splits = ["train", "test", "val", "train", "test", "val"]
    blank = {"path": "a", "class": "a", "label": 0, "group": "a", "sha256": "", "slices": {}}
    rows = [{**blank, "index": index, "split": split} for index, split in enumerate(splits)]
    head = {"schema": 2, "classes": ["a", "b", "c"], "ok_class": None, "input": _CONTRACT.to_json(), "n": len(rows)}
    (data / "dataset.json").write_text(json.dumps(head))
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.save(data / "pixels.npy", _PIXELS)
    meta = checkpoint.CheckpointMeta("timm/none", ("a", "b", "c"), _CONTRACT, 0.0)
    monkeypatch.setattr("edgeft.graph.export.load", lambda _: (module, meta))
    monkeypatch.setattr(predict, "load", lambda _: (module, meta))
    return {"checkpoint": folder / "checkpoint", "data": data}


def context(folder: Path) -> Context:
    out, workspace = folder / "out", folder / "workspace"
    out.mkdir()
    workspace.mkdir()
    return Context(out, workspace, seed=0, threads=1)


def test_the_stage_writes_the_graph_and_what_it_is(
    tmp_path: Path, module: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(context(tmp_path), write_inputs(tmp_path, module, monkeypatch), ExportConfig())
    assert sorted(path.name for path in result.folder.iterdir()) == ["graph.json", "model.onnx"]
    facts = json.loads((result.folder / "graph.json").read_text())
    assert facts["classes"] == ["a", "b", "c"]
    assert facts["input"] == _CONTRACT.to_json()
    assert facts["nodes"]["Conv"] == 2
    assert facts["compared_rows"] == 4
    assert 0 <= facts["max_abs_logit_error"] < 1e-5
    model = load(result.folder / "model.onnx")
    assert model.opset_import[0].version == facts["opset"] == 20
    assert result.measurements["size_bytes"] == (result.folder / "model.onnx").stat().st_size


def test_the_stage_refuses_a_graph_that_is_not_torch(
    tmp_path: Path, module: nn.Module, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = write_inputs(tmp_path, module, monkeypatch)
    monkeypatch.setattr("edgeft.graph.export.build", lambda *_: (model, (), ()))
    monkeypatch.setattr("edgeft.graph.export.logits", lambda _, rows, __: torch_logits(module, rows[:]["pixels"]) + 0.1)
    with pytest.raises(EdgeftError, match=r"differ from torch's by 0\.1 on 4 rows"):
        run(context(tmp_path), inputs, ExportConfig())


def test_the_stage_names_a_damaged_data_folder(
    tmp_path: Path, module: nn.Module, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = write_inputs(tmp_path, module, monkeypatch)
    monkeypatch.setattr("edgeft.graph.export.build", lambda *_: (model, (), ()))
    (inputs["data"] / "pixels.npy").unlink()
    with pytest.raises(DataError, match=r"pixels\.npy: missing"):
        run(context(tmp_path), inputs, ExportConfig())

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeft.core.errors import DataError
from edgeft.graph.load import load

_WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def external_model(folder: Path, location: str = "weights.bin", **entries: str) -> Path:
    """Write a model whose weight is said to lie at `location`; `entries` override offset and length."""
    tensor = numpy_helper.from_array(_WEIGHT, "w")
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "24", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "m")
    model = helper.make_model(helper.make_graph([node], "g", [x], [y], [tensor]))
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_weights_beside_the_model_are_read_into_it(tmp_path: Path) -> None:
    model = load(external_model(tmp_path), external_data=True)
    (tensor,) = model.graph.initializer
    assert tensor.data_location == TensorProto.DEFAULT
    assert not tensor.external_data
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), _WEIGHT)


def test_external_weights_in_a_subfolder_are_read(tmp_path: Path) -> None:
    path = external_model(tmp_path, "below/weights.bin")
    (tmp_path / "below").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "below" / "weights.bin")
    np.testing.assert_array_equal(numpy_helper.to_array(load(path, external_data=True).graph.initializer[0]), _WEIGHT)


def test_external_weights_are_refused_by_default(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'w' lies outside") as caught:
        load(external_model(tmp_path))
    assert caught.value.hint is not None
    assert "onnx.save" in caught.value.hint


@pytest.mark.parametrize(
    "location",
    ["../weights.bin", "below/../../weights.bin", "/etc/passwd", "C:\\weights.bin", "..\\weights.bin", "", ".", "a\0b"],
)
def test_locations_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 24)
    with pytest.raises(DataError, match="not a path inside"):
        load(external_model(folder, location), external_data=True)


def _symlink(folder: Path) -> None:
    (folder / "weights.bin").rename(folder / "real.bin")
    (folder / "weights.bin").symlink_to("real.bin")


def _hard_link(folder: Path) -> None:
    os.link(folder / "weights.bin", folder / "other.bin")


def _folder(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").mkdir()


def _pipe(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    os.mkfifo(folder / "weights.bin")


def _gone(folder: Path) -> None:
    (folder / "weights.bin").unlink()


@pytest.mark.parametrize("make", [_symlink, _hard_link, _folder, _pipe, _gone], ids=lambda make: make.__name__)
def test_anything_but_a_plain_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = external_model(tmp_path)
    make(tmp_path)
    with pytest.raises(DataError, match=r"weights\.bin"):
        load(path, external_data=True)


def test_a_symlinked_folder_on_the_way_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    models = tmp_path / "models"
    models.mkdir()
    path = external_model(models, "below/weights.bin")
    (models / "weights.bin").rename(outside / "weights.bin")
    (models / "below").symlink_to(outside)
    with pytest.raises(DataError, match="a link"):
        load(path, external_data=True)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "8"}, "ends at byte 32 of a file of 24"),
        ({"length": "12"}, "12 bytes are named, its shape and type need 24"),
        ({"offset": "-1"}, "offset is '-1'"),
        ({"length": "lots"}, "length is 'lots'"),
    ],
)
def test_wrong_extents_are_refused(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(external_model(tmp_path, **entries), external_data=True)


def test_more_than_2_gb_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = external_model(tmp_path, length=str(3 << 30))
    os.truncate(tmp_path / "weights.bin", 3 << 30)  # sparse: it takes no room
    model = onnx.ModelProto.FromString(path.read_bytes())
    model.graph.initializer[0].dims[:] = [2, 3 << 27]
    path.write_bytes(model.SerializeToString())
    monkeypatch.setattr(os, "open", lambda *given, **_: pytest.fail(f"opened {given[0]}"))
    with pytest.raises(DataError, match="exceed 2 GB"):
        load(path, external_data=True)


def test_external_data_hidden_in_a_subgraph_is_seen(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    inner = onnx.ModelProto.FromString(path.read_bytes()).graph
    outer = helper.make_graph(
        [helper.make_node("If", ["c"], ["z"], "if", then_branch=inner, else_branch=inner)],
        "outer",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    path.write_bytes(helper.make_model(outer).SerializeToString())
    with pytest.raises(DataError, match="'w' lies outside"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07no model"])
def test_files_that_are_no_model_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model\.onnx: is no ONNX model"):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.onnx: cannot be read: No such file"):
        load(tmp_path / "absent.onnx")

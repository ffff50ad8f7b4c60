from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeft.core.errors import IntegrityError
from edgeft.runtime.onnx_file import refuse_external_data


def outside(tensor: onnx.TensorProto, location: str = "../../etc/passwd") -> onnx.TensorProto:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.ClearField("raw_data")
    return tensor


def weight() -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(4, np.float32), "w")


def model(*, initializer: list[onnx.TensorProto] | None = None, nodes: list[onnx.NodeProto] | None = None) -> bytes:
    nodes = nodes or [helper.make_node("Identity", ["w"], ["y"])]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [], [output], initializer or [])
    return bytes(helper.make_model(graph).SerializeToString())


def test_a_whole_model_passes(tiny_graph: Path) -> None:
    refuse_external_data(tiny_graph.read_bytes(), "model.onnx")
    refuse_external_data(model(initializer=[weight()]), "model.onnx")


def test_external_tensors_are_refused_wherever_they_hide() -> None:
    constant = helper.make_node("Constant", [], ["y"], value=outside(weight()))
    inner = helper.make_graph([constant], "then", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    sparse = onnx.SparseTensorProto(values=outside(weight()), dims=[4])
    function = helper.make_function("d", "f", [], ["y"], [constant], [helper.make_opsetid("", 18)])
    holder = onnx.ModelProto.FromString(model())
    holder.functions.append(function)
    whole = onnx.ModelProto.FromString(model())
    whole.graph.sparse_initializer.append(sparse)
    hidden = [
        model(initializer=[outside(weight())]),
        model(nodes=[constant]),
        model(nodes=[branch]),
        model(nodes=[helper.make_node("Constant", [], ["y"], sparse_value=sparse)]),
        holder.SerializeToString(),
        whole.SerializeToString(),
    ]
    for data in hidden:
        with pytest.raises(IntegrityError, match=r"model\.onnx: a tensor keeps its data in another file"):
            refuse_external_data(data, "model.onnx")


def test_a_location_without_the_flag_is_refused_too() -> None:
    tensor = weight()
    tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(IntegrityError, match="another file"):
        refuse_external_data(model(initializer=[tensor]), "model.onnx")


@pytest.mark.parametrize("cut", [1, 3, 40, 100])
def test_damaged_files_are_named(tiny_graph: Path, cut: int) -> None:
    with pytest.raises(IntegrityError, match=r"model\.onnx: not a readable ONNX file"):
        refuse_external_data(tiny_graph.read_bytes()[:-cut], "model.onnx")


@pytest.mark.parametrize("data", [b"\x80" * 20, b"\x0f\x00", b"\x38\x01"])
def test_hostile_bytes_end_in_an_error(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="not a readable ONNX file"):
        refuse_external_data(data, "x")


def test_nesting_is_bounded() -> None:
    data = b""
    for _ in range(100):  # graph -> node -> attribute -> graph ...
        for field in (6, 5, 1):
            data = bytes([field << 3 | 2]) + _varint(len(data)) + data
    with pytest.raises(IntegrityError, match="nested deeper"):
        refuse_external_data(b"\x3a" + _varint(len(data)) + data, "x")


def _varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])

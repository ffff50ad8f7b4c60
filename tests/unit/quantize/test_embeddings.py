"""Embedding tables in 8 bits: near the float rows, small in the file, and left alone where it would not pay."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeft.quantize.embeddings import WORTH, quantize_embeddings_


def lookup(rows: int, width: int, *, readers: int = 1, axis: int = 0) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    table = (rng.normal(size=(rows, width)) * rng.uniform(0.01, 3, (rows, 1))).astype(np.float32)
    table[3] = 0
    nodes = [helper.make_node("Gather", ["table", "ids"], [f"y{i}"], f"word{i}", axis=axis) for i in range(readers)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "L"])],
        [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["A", "B", "C"]) for i in range(readers)],
        [numpy_helper.from_array(table, "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def quantized(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    changed = ir.from_proto(model)
    names = quantize_embeddings_(changed)
    proto = ir.to_proto(changed)
    onnx.checker.check_model(proto)
    return proto, names


def test_rows_are_off_by_half_a_step_of_their_own_at_most() -> None:
    model = lookup(700, 96)
    made, names = quantized(model)
    assert names == ("word0",)
    table = numpy_helper.to_array(model.graph.initializer[0]).astype(np.float64)
    ids = np.arange(700).reshape(7, 100)
    found = ort.InferenceSession(made.SerializeToString()).run(None, {"ids": ids})[0]
    assert found.shape == (7, 100, 96)
    error = np.abs(found.reshape(700, 96) - table)
    assert (error.max(axis=1) <= np.abs(table).max(axis=1) / 127 / 2 * 1.001 + 1e-12).all()
    assert not found.reshape(700, 96)[3].any()


def test_the_file_takes_a_quarter_and_a_second_run_changes_nothing() -> None:
    model = lookup(2000, 96)
    made, _ = quantized(model)
    assert made.ByteSize() < 0.28 * model.ByteSize()
    assert {tensor.name: tensor.data_type for tensor in made.graph.initializer}["table::q"] == TensorProto.INT8
    assert quantized(made)[1] == ()
    assert [value.name for value in made.graph.output] == ["y0"]


def mask() -> onnx.ModelProto:
    model = lookup(800, 96)
    (table,) = (tensor for tensor in model.graph.initializer if tensor.name == "table")
    values = numpy_helper.to_array(table).copy()
    values[0, 1:] = -np.inf
    table.CopyFrom(numpy_helper.from_array(values, "table"))
    return model


LEFT = {
    "mask": mask(),
    "small": lookup(WORTH // 96 - 1, 96),
    "shared": lookup(800, 96, readers=2),
    "other axis": lookup(800, 96, axis=1),
    "scales": lookup(WORTH + 1, 1),
}


@pytest.mark.parametrize("model", LEFT.values(), ids=LEFT)
def test_what_would_not_pay_or_is_no_table_stays(model: onnx.ModelProto) -> None:
    made, names = quantized(model)
    assert names == ()
    assert [node.op_type for node in made.graph.node] == ["Gather"] * len(model.graph.node)

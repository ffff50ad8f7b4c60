"""The deployment graph of a text classifier: torch's numbers at every length, no shape arithmetic."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from edgeft.graph.export import build_text
from edgeft.graph.passes.plain_reshapes import plain_reshapes_
from edgeft.graph.taps import with_outputs
from edgeft.models import text
from edgeft.runtime.session import Model
from edgeft.runtime.text import TextContract
from edgeft.testing.toys import write_encoder


@pytest.mark.parametrize("pair", [False, True])
def test_logits_are_torchs_at_every_length_and_batch(tmp_path: Path, pair: bool) -> None:  # noqa: FBT001 - a case
    write_encoder(tmp_path, 60)
    torch.manual_seed(1)
    module = text.from_folder(tmp_path, 3, "mean", 0.0).eval()
    torch.nn.init.normal_(module.classifier.weight)
    contract = TextContract(16, "", 0, pair, pair, "x")
    graph, _, _ = build_text(module, contract, 20)
    assert [value.name for value in graph.graph.input] == list(contract.inputs)
    session = ort.InferenceSession(with_outputs(graph, ["logits"]).SerializeToString())
    rng = np.random.default_rng(0)
    for n, length in ((1, 2), (1, 7), (3, 5), (4, 16), (2, 32)):
        ids, mask = rng.integers(4, 60, (n, length)), np.ones((n, length), np.int64)
        mask[-1, length - length // 3 :] = 0
        feeds = {"input_ids": ids, "attention_mask": mask}
        if pair:
            feeds["token_type_ids"] = (np.arange(length) > length // 2)[None].repeat(n, 0).astype(np.int64)
        with torch.no_grad():
            expected = module({name: torch.from_numpy(values) for name, values in feeds.items()}).numpy()
        np.testing.assert_allclose(session.run(["logits"], feeds)[0], expected, atol=1e-4, rtol=1e-4)


def test_nothing_is_left_to_compute_shapes_with(text_graph: Path) -> None:
    graph = onnx.load(text_graph).graph
    counted = Counter(node.op_type for node in graph.node)
    assert counted["Shape"] == 1  # positions are cut to the text's length
    assert not {"Concat", "Expand", "GatherElements", "Where", "IsNaN", "Equal", "Identity", "Constant"} & set(counted)
    assert counted["Softmax"] == 2 + 1  # attention, scores
    constants = {tensor.name for tensor in graph.initializer}
    reshapes = [node for node in graph.node if node.op_type == "Reshape"]
    assert sum(node.input[1] in constants for node in reshapes) == len(reshapes)


def test_products_go_by_the_names_of_their_modules(text_graph: Path) -> None:
    names = {node.name for node in onnx.load(text_graph).graph.node if node.op_type == "MatMul"}
    for module in ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"):
        assert {f"encoder.encoder.layer.{i}.{module}/MatMul" for i in range(2)} <= names


def test_it_is_a_deployment_graph(text_graph: Path) -> None:
    model = Model.open(text_graph)
    assert model.input_size is None
    scores = model.scores({"input_ids": np.array([[2, 5, 3]]), "attention_mask": np.ones((1, 3), np.int64)})
    assert scores.shape == (1, 3)
    assert scores.sum() == pytest.approx(1)


def reshape(target: list[int] | None, in_shape: list[object], out_shape: list[object], **attributes: int) -> ir.Model:
    """A model that reshapes x to sizes that it computes from x itself, or to a constant `target`."""
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["sizes"]),
        node("Gather", ["sizes", "places"], ["kept"]),
        node("Concat", ["kept", "last"], ["computed"], axis=0),
        node("Reshape", ["x", "target" if target else "computed"], ["y"], "view", **attributes),
    ]
    arrays = {"places": np.arange(2), "last": np.array([2, -1]), **({"target": np.array(target)} if target else {})}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, in_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out_shape)],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


@pytest.mark.parametrize("allowzero", [0, 1])
def test_a_reshape_by_its_inputs_own_sizes_gets_a_constant_target(allowzero: int) -> None:
    model = reshape(None, ["N", "L", 12], ["N", "L", 2, 6], allowzero=allowzero)
    expected = [run(model, shape) for shape in ((1, 1, 12), (3, 5, 12))]
    assert plain_reshapes_(model).changed == ("view",)
    assert plain_reshapes_(model).changed == ()
    constant = ir.convenience.get_const_tensor(model.graph[-1].inputs[1])  # type: ignore[arg-type]  # it has one
    assert constant is not None
    assert constant.numpy().tolist() == [0, 0, 2, 6]
    for before, after in zip(expected, (run(model, shape) for shape in ((1, 1, 12), (3, 5, 12))), strict=True):
        np.testing.assert_array_equal(before, after)


def test_sizes_that_cannot_be_told_are_left_and_said() -> None:
    report = plain_reshapes_(reshape(None, ["N", "L", 12], ["A", "B", 2, 6]))
    assert report.changed == ()
    assert "two sizes are open" in report.refused[0].reason
    assert plain_reshapes_(reshape([0, 0, 2, 6], ["N", "L", 12], ["N", "L", 2, 6])).changed == ()


def run(model: ir.Model, shape: tuple[int, ...]) -> np.ndarray:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    found: np.ndarray = session.run(None, {"x": np.arange(np.prod(shape), dtype=np.float32).reshape(shape)})[0]
    return found

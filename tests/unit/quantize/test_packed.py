"""Several token inputs as one array and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.packed import pack, packed_tokens, unpack, without_picks
from edgeft.quantize.plan import Skip

WORDS, WIDTH = 12, 5


def graph(kind: int = TensorProto.INT64, rank: int = 2) -> onnx.ModelProto:
    """Return sums of the embeddings of the tokens that are there."""
    table = np.random.default_rng(0).standard_normal((WORDS, WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], axis=0),
        helper.make_node("Cast", ["mask"], ["there"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["there", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "middle"], ["sums"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([2]), "last"),
        numpy_helper.from_array(np.array([1]), "middle"),
    ]
    given = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "L"]),
        helper.make_tensor_value_info("mask", kind, ["N", "L", "M"][:rank]),
    ]
    sums = [helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["N", WIDTH])]
    made = helper.make_graph(nodes, "sums", given, sums, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


class Texts:
    """Three texts of different lengths."""

    ids = np.array([[3, 4, 5, 0], [6, 0, 0, 0], [7, 8, 9, 10]])
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> Mapping[str, Any]:
        return {"ids": self.ids[rows], "mask": self.mask[rows]}


def sums(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, dict(feeds))[0]
    return found


def test_a_packed_graph_computes_the_same_from_one_array() -> None:
    given = Texts()[0:3]
    model = graph()
    packed = pack(model)
    (only,) = packed.graph.input
    together = np.stack(list(given.values()), axis=1)
    assert (sums(packed, {only.name: together}) == sums(model, given)).all()


def test_unpacking_gives_the_graph_back() -> None:
    model = graph()
    again = unpack(pack(model), model)
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_inputs_of_different_lengths_are_refused_by_name() -> None:
    class Uneven(Texts):
        mask = Texts.mask[:, :3]

    with pytest.raises(QuantizationError, match=r"\('ids' 4, 'mask' 3\)") as caught:
        packed_tokens(Uneven())
    assert "--method dynamic" in str(caught.value.hint)


def test_tokens_are_repeated_in_place_of_padding() -> None:
    found = packed_tokens(Texts())
    assert found[:, 0].tolist() == [[3, 4, 5, 3], [6, 6, 6, 6], [7, 8, 9, 10]]
    assert (found[:, 1] == 1).all()


@pytest.mark.parametrize(("kind", "rank"), [(TensorProto.FLOAT, 2), (TensorProto.INT64, 3)])
def test_inputs_that_are_no_tokens_are_refused_by_name(kind: int, rank: int) -> None:
    with pytest.raises(QuantizationError, match=r"2 inputs \(ids, mask\).*'mask' is neither") as caught:
        pack(graph(kind, rank))
    assert "--method dynamic or fp16" in str(caught.value.hint)


def test_what_packing_put_in_is_not_told() -> None:
    names = {node.name for node in pack(graph()).graph.node if node.name}
    skips = tuple(Skip(name, "no integer kernel") for name in (*names, "layer.1"))
    assert without_picks(skips) == (Skip("layer.1", "no integer kernel"),)

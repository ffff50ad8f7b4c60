"""What the torch executor refuses, returns, trains and forgets."""

import weakref
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.overrides import TorchFunctionMode

from edgeft.core.errors import EdgeftError
from edgeft.graph.module import GraphModule
from edgeft.graph.torch_ops.operator import UnsupportedNodeError


def graph_of(
    nodes: Sequence[Any], arrays: dict[str, np.ndarray] | None = None, *, opset: int = 18, functions: Sequence[Any] = ()
) -> ir.Model:
    """Return a model from x float32 [N, 4] to y."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(array, name) for name, array in (arrays or {}).items()]
    graph = helper.make_graph(nodes, "test", [x], [y], initializers)
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid("here", 1)] if functions else [])]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10))


def affine() -> ir.Model:
    """Return y = relu(x w.1 + b), all in one Gemm and one Relu."""
    arrays = {"w.1": np.arange(8, dtype=np.float32).reshape(4, 2), "b": np.ones(2, np.float32), "w/1": np.int64([1])}
    nodes = [
        helper.make_node("Gemm", ["x", "w.1", "b"], ["sum"], "sum"),
        helper.make_node("Relu", ["sum"], ["relu"], "relu"),
        helper.make_node("Unsqueeze", ["relu", "w/1"], ["y"], "last"),
    ]
    return graph_of(nodes, arrays)


def test_an_unknown_operator_is_refused_by_name_with_what_there_is() -> None:
    model = graph_of([helper.make_node("Det", ["x"], ["y"], "blocks.3.det")])
    with pytest.raises(UnsupportedNodeError, match=r"'blocks\.3\.det' \(Det\).*Conv, .*QuantizeLinear") as caught:
        GraphModule(model, trainable=[])
    assert caught.value.hint


def test_an_operator_of_another_domain_is_not_mistaken_for_ours() -> None:
    model = graph_of([helper.make_node("Gelu", ["x"], ["y"], "g", domain="com.microsoft")])
    with pytest.raises(UnsupportedNodeError, match=r"com\.microsoft\.Gelu"):
        GraphModule(model, trainable=[])


@pytest.mark.parametrize(
    ("node", "what"),
    [
        (helper.make_node("MaxPool", ["x3"], ["y", "places"], "n", kernel_shape=[2]), "output 'places'"),
        (helper.make_node("AveragePool", ["x3"], ["y"], "n", kernel_shape=[2], dilations=[2]), "dilations"),
        (helper.make_node("Conv", ["x3", "w"], ["y"], "n", auto_pad="SOMEHOW"), "auto_pad = 'SOMEHOW'"),
        (helper.make_node("QuantizeLinear", ["x3", "s"], ["y"], "n", output_dtype=TensorProto.INT4), "INT4"),
        (helper.make_node("Cast", ["x3"], ["y"], "n", to=TensorProto.STRING), "STRING"),
    ],
)
def test_what_an_operator_cannot_do_is_refused_with_the_node(node: Any, what: str) -> None:  # noqa: ANN401 - onnx protos
    arrays = {"axes": np.int64([1]), "w": np.ones((1, 1, 2), np.float32), "s": np.float32(1)}
    model = graph_of([helper.make_node("Unsqueeze", ["x", "axes"], ["x3"], "u"), node], arrays, opset=21)
    with pytest.raises(UnsupportedNodeError, match=what) as caught:
        GraphModule(model, trainable=[])({"x": torch.ones(1, 4)})
    assert "'n'" in caught.value.message


def test_an_opset_before_13_is_refused() -> None:
    with pytest.raises(EdgeftError, match="opset 12"):
        GraphModule(graph_of([helper.make_node("Relu", ["x"], ["y"])], opset=12), trainable=[])


@pytest.mark.parametrize(("name", "message"), [("w.2", "no such initializer"), ("w/1", "int64, not a float")])
def test_only_float_initializers_can_be_trained(name: str, message: str) -> None:
    with pytest.raises(EdgeftError, match=message):
        GraphModule(affine(), trainable=[name])


def test_trainable_initializers_are_parameters_and_the_rest_buffers() -> None:
    module = GraphModule(affine(), trainable=["w.1"])
    assert [parameter is module.tensor("w.1") for parameter in module.parameters()] == [True]
    assert {id(buffer) for buffer in module.buffers()} == {id(module.tensor(name)) for name in ("b", "w/1")}
    module({"x": torch.ones(1, 4)})["y"].sum().backward()
    assert torch.equal(module.tensor("w.1").grad, torch.ones(4, 2))
    with pytest.raises(EdgeftError, match="no initializer 'w'"):
        module.tensor("w")


def test_the_model_given_is_neither_changed_nor_shared() -> None:
    model = affine()
    module = GraphModule(model, trainable=["b"])
    with torch.no_grad():
        module.tensor("b").fill_(7)
    assert model.graph.initializers["b"].const_value.numpy().tolist() == [1, 1]


def test_inner_tensors_come_on_request() -> None:
    module = GraphModule(affine(), trainable=[])
    found = module({"x": -torch.ones(1, 4)}, also=["sum", "x", "b"])
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "y": [[[0.0, 0.0]]],
        "sum": [[-11.0, -15.0]],
        "x": [[-1.0] * 4],
        "b": [1.0, 1.0],
    }
    with pytest.raises(EdgeftError, match="no tensor 'sun'") as caught:
        module({"x": torch.ones(1, 4)}, also=["sun"])
    assert "sum" in (caught.value.hint or "")


@pytest.mark.parametrize("names", [[], ["x", "z"], ["z"]])
def test_missing_and_unknown_inputs_are_named(names: list[str]) -> None:
    with pytest.raises(EdgeftError, match=r"takes \['x'\]"):
        GraphModule(affine(), trainable=[])({name: torch.ones(1, 4) for name in names})


def test_a_tensor_that_does_not_fit_names_the_node_and_the_shapes() -> None:
    with pytest.raises(EdgeftError, match=r"'sum' \(Gemm\).*torch\.float32 \[2, 5\], torch\.float32 \[4, 2\]"):
        GraphModule(affine(), trainable=[])({"x": torch.ones(2, 5)})


class Alive(TorchFunctionMode):
    """Counts how many results of torch.relu live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[weakref.ref[torch.Tensor]] = []
        self.most = 0

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - torch's signature
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - torch's signature
        result = func(*args, **(kwargs or {}))
        if func is torch.relu:
            self.results.append(weakref.ref(result))
            self.most = max(self.most, sum(reference() is not None for reference in self.results))
        return result


def test_a_tensor_is_forgotten_after_its_last_use() -> None:
    chain = ["x", *(f"t{index}" for index in range(9)), "y"]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(chain)]
    with torch.no_grad(), Alive() as alive:
        GraphModule(graph_of(nodes), trainable=[])({"x": torch.ones(1, 4)})
    assert len(alive.results) == 10
    assert alive.most == 2  # a node's input and its output


def test_an_output_that_nobody_reads_and_an_absent_input_are_fine() -> None:
    arrays = {"sizes": np.int64([1, 3]), "high": np.float32(2)}
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["first", "rest"], "split", axis=1),
        helper.make_node("Clip", ["rest", "", "high"], ["y"], "clip"),
    ]
    found = GraphModule(graph_of(nodes, arrays), trainable=[])({"x": torch.tensor([[9.0, -5.0, 1.0, 3.0]])})
    assert found["y"].tolist() == [[-5.0, 1.0, 2.0]]


def test_functions_of_the_model_are_inlined() -> None:
    twice = helper.make_function(
        "here", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    model = graph_of([helper.make_node("Twice", ["x"], ["y"], domain="here")], functions=[twice])
    found = GraphModule(model, trainable=[])({"x": torch.ones(1, 4)})
    assert found["y"].tolist() == [[2.0] * 4]

"""What each pass refuses, with its reason, and the names it gives; what it changes is proven in tests/numerics."""

import re
from collections.abc import Callable

import onnx_ir as ir
import pytest
from onnx import parser

from edgeft.graph.passes.flatten_reshapes import flatten_reshapes_
from edgeft.graph.passes.forget_origin import forget_origin_
from edgeft.graph.passes.merge_common import merge_common_
from edgeft.graph.passes.name_layers import name_layers_
from edgeft.graph.passes.pool_spatial_means import pool_spatial_means_
from edgeft.graph.passes.remove_identities import remove_identities_
from edgeft.graph.passes.report import PassReport
from edgeft.graph.simplify import dynamic_tensors, simplify_


def model_of(inputs: str, body: str, constants: str = "", output: str = "float[N,A] y") -> ir.Model:
    text = f'<ir_version: 9, opset_import: ["" : 20]> g ({inputs}) => ({output}) <{constants}> {{ {body} }}'
    return ir.from_proto(parser.parse_model(text))


@pytest.mark.parametrize(
    ("inputs", "constants", "reason"),
    [
        ("float[N,3,4,4] x", "int64[1] a={1}", r"axes \[1\] of rank 4 are not all the spatial axes"),
        ("float[N,3,4,4] x", "int64[1] a={2}", r"axes \[2\] of rank 4 are not all the spatial axes"),
        ("float[N,3,4,4] x", "int64[3] a={1, 2, 3}", "are not all the spatial axes"),
        ("float[N,3] x", "int64[1] a={1}", "are not all the spatial axes"),
        ("float[N,3,4,4] x, int64[2] a", "", "the axes are not constant"),
        ("int32[N,3,4,4] x", "int64[2] a={2, 3}", "not a float"),
    ],
)
def test_means_that_are_not_spatial_stay(inputs: str, constants: str, reason: str) -> None:
    model = model_of(inputs, "[mean] y = ReduceMean<keepdims=0>(x, a)", constants)
    report = pool_spatial_means_(model)
    assert not report
    (refusal,) = report.refused
    assert refusal.node == "mean"
    assert re.search(reason, refusal.reason)


@pytest.mark.parametrize(
    ("inputs", "constants", "reason"),
    [
        ("float[N,3,4,4] x", "int64[3] s={-1, 3, 16}", "does not merge all axes"),
        ("float[N,3,4,4] x", "int64[2] s={-1, 24}", "does not merge all axes"),
        ("float[N,3,H,4] x", "int64[2] s={-1, 48}", "not static past the batch axis"),
        ("float[N,3,4,4] x, int64[2] s", "", "the target shape is not constant"),
    ],
)
def test_reshapes_that_are_no_flatten_stay(inputs: str, constants: str, reason: str) -> None:
    report = flatten_reshapes_(model_of(inputs, "[view] y = Reshape(x, s)", constants))
    assert not report
    assert [(item.node, reason in item.reason) for item in report.refused] == [("view", True)]


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("a = Abs(x) b = Abs(x) y = Add(a, b)", ["Abs", "Add"]),
        ("a = LeakyRelu<alpha=0.1>(x) b = LeakyRelu<alpha=0.1>(x) y = Add(a, b)", ["LeakyRelu", "Add"]),
        ("a = LeakyRelu<alpha=0.1>(x) b = LeakyRelu<alpha=0.2>(x) y = Add(a, b)", ["LeakyRelu", "LeakyRelu", "Add"]),
        ("a, i = TopK(x, k) b, j = TopK(x, k) y = Add(a, b)", ["TopK", "Add"]),
        ("a = RandomNormalLike(x) b = RandomNormalLike(x) y = Add(a, b)", ["RandomNormalLike"] * 2 + ["Add"]),
        ("a = Sub(x, z) b = Sub(z, x) y = Add(a, b)", ["Sub", "Sub", "Add"]),
    ],
)
def test_what_computes_the_same_is_merged_and_nothing_else(body: str, kept: list[str]) -> None:
    model = model_of("float[N,3] x, float[N,3] z", body, "int64[1] k={2}")
    before = len(model.graph)
    assert len(merge_common_(model).changed) == before - len(kept)
    assert [node.op_type for node in model.graph] == kept


@pytest.mark.parametrize(
    ("run_pass", "body", "reason"),
    [
        (merge_common_, "[one] z = Abs(x) [two] y = Abs(x)", "it makes an output of the graph"),
        (remove_identities_, "z = Abs(x) [two] y = Identity(z)", "its input is an output, too"),
        (remove_identities_, "z = Abs(x) [two] y = Identity(x)", "its input is an input or a weight"),
    ],
)
def test_outputs_keep_a_node_of_their_own(run_pass: Callable[[ir.Model], PassReport], body: str, reason: str) -> None:
    report = run_pass(model_of("float[N,3] x", body, output="float[N,3] y, float[N,3] z"))
    assert not report
    assert [(item.node, item.reason) for item in report.refused] == [("two", reason)]


def test_a_zero_that_means_zero_is_not_a_batch_axis() -> None:
    model = model_of("float[N,3,4,4] x", "y = Reshape<allowzero=1>(x, s)", "int64[2] s={0, 48}")
    assert not flatten_reshapes_(model)


def test_layers_are_named_after_their_weights() -> None:
    body = "a = Conv(x, w, b1) b = Relu(a) c = Conv(b, w) d = Relu(c) y = Abs(d)"
    model = model_of("float[N,1,2,2] x", body, "float[1,1,1,1] w={2.}, float[1] b1={1.}", "float[N,1,2,2] y")
    model.graph.initializers["w"].name = "stem.weight"
    name_layers_(model)
    assert [node.name for node in model.graph] == ["stem", "stem/Relu", "stem.2", "stem.2/Relu", "stem.2/Abs"]
    assert [node.outputs[0].name for node in model.graph] == ["stem", "stem/Relu", "stem.2", "stem.2/Relu", "y"]
    assert set(model.graph.initializers) == {"stem.weight", "stem.bias"}


def test_origin_is_forgotten_once() -> None:
    model = model_of("float[N,3] x", "[n] y = Abs(x)")
    node = model.graph.node(0)
    node.metadata_props["pkg.torch.onnx.stack_trace"] = "File /home/someone/model.py"
    model.producer_name, model.doc_string = "pytorch", "made on /home/someone"
    model.metadata_props["path"] = "/home/someone"
    assert forget_origin_(model)
    assert b"someone" not in ir.to_proto(model).SerializeToString()
    assert not forget_origin_(model)


def test_sizes_that_stay_open_past_the_batch_are_named() -> None:
    model = model_of("float[N,3,H,4] x", "[n] z = Abs(x) y = Flatten<axis=1>(z)")
    simplify_(model)
    assert dynamic_tensors(model) == ("z", "y")


def test_quantized_weights_are_not_folded_back_to_float() -> None:
    constants = "int8[2,2] w={1, 2, 3, 4}, float s={0.5}, int8 z={0}"
    model = model_of("float[N,2] x", "wd = DequantizeLinear(w, s, z) y = MatMul(x, wd)", constants, "float[N,2] y")
    simplify_(model)
    assert [node.op_type for node in model.graph] == ["DequantizeLinear", "MatMul"]


def test_transposed_weights_are_folded_whatever_their_size() -> None:
    values = ",".join(["0.5"] * 20000)
    constants = f"float[200,100] w={{{values}}}, float[200] b={{{','.join(['1.'] * 200)}}}"
    body = "t = Transpose<perm=[1,0]>(w) m = MatMul(x, t) y = Add(m, b)"
    model = model_of("float[N,100] x", body, constants, "float[N,200] y")
    simplify_(model)
    assert [node.op_type for node in model.graph] == ["Gemm"]

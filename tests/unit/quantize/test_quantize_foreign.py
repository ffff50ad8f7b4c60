"""A user's ONNX file on its way in: what is taken, what is refused by name, and that it still computes the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeft.core.errors import DataError
from edgeft.data.samples import InputSpec, Samples
from edgeft.quantize.foreign import Prepared, prepare, read_model
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.placement import PLACEMENT

Net = Callable[..., Any]
Rows = Callable[..., Any]


def imported(path: Path, x: np.ndarray, sizes: tuple[int, ...] | None = None) -> Prepared:
    foreign = read_model(path, sizes)
    return prepare(foreign, Samples(path, {foreign.inputs[0].name: x}, None, None, foreign.inputs))


def saved(tmp_path: Path, model: onnx.ModelProto, **how: Any) -> Path:  # noqa: ANN401 - onnx.save's options
    path = tmp_path / "model.onnx"
    onnx.save(model, path, **how)
    return path


@pytest.mark.parametrize(
    "made",
    [
        {"opset": 11, "ir_version": 3},
        {"opset": 13, "constants": True},
        {"opset": 17, "softmax": True},
        {"opset": 18, "batch": 1},
        {"opset": 20, "side": "size"},
        {"opset": 23, "ir_version": 10, "softmax": True},
    ],
    ids=str,
)
def test_foreign_styles_become_one_graph_that_computes_the_same(
    tmp_path: Path, make_foreign: Net, rows_of: Rows, made: dict[str, Any]
) -> None:
    model = make_foreign(**made)
    x, _ = rows_of(model, 5)
    found = imported(saved(tmp_path, model), x)
    graph = found.model.graph
    assert 18 <= found.opset <= 23
    assert [value.name for value in graph.input] == ["x"]
    assert [value.name for value in graph.output] == ["classes"]
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {"BatchNormalization", "Constant", "ReduceMean", "MatMul"}
    assert {"Conv", "GlobalAveragePool", "Gemm"} <= kinds
    assert found.outputs == 3
    assert found.tensor == ("logits" if made.get("softmax") else "classes")
    named = {node.op_type: node.name for node in graph.node}
    assert (named["Conv"], named["GlobalAveragePool"]) == ("b2", "pool")  # nameless in the file: after their outputs
    before, after = (
        ort.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"])
        for one in (model, found.model)
    )
    for row in x:
        expected, actual = (session.run(None, {"x": row[None]})[0] for session in (before, after))
        np.testing.assert_allclose(actual, expected, atol=1e-5)  # float32 sums in another order


def test_external_data_is_read_and_ends_inside(tmp_path: Path, make_foreign: Net, rows_of: Rows) -> None:
    model = make_foreign()
    x, _ = rows_of(model, 3)
    path = saved(tmp_path, model, save_as_external_data=True, location="weights.bin", size_threshold=0)
    found = imported(path, x)
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in found.model.graph.initializer)
    (tmp_path / "weights.bin").rename(tmp_path / "elsewhere.bin")
    with pytest.raises(DataError, match=r"external data of tensor .*weights\.bin"):
        read_model(path)


@pytest.mark.parametrize("opset", [10, 24])
def test_an_opset_out_of_range_is_refused(tmp_path: Path, make_foreign: Net, rows_of: Rows, opset: int) -> None:
    model = make_foreign(18, ir_version=10)
    x, _ = rows_of(model, 2)
    model.opset_import[0].version = opset
    with pytest.raises(DataError, match=f"opset {opset}, expected 11 to 23"):
        imported(saved(tmp_path, model), x)


def test_an_operator_that_cannot_be_converted_is_named(
    tmp_path: Path, make_foreign: Net, rows_of: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        message = "BaseConverter.h:68: adapter_lookup: Assertion failed: No Adapter From Version $12 for ReduceMean"
        raise RuntimeError(message)

    monkeypatch.setattr("edgeft.graph.opset.version_converter.convert_version", fails)
    model = make_foreign(11)
    x, _ = rows_of(model, 2)
    with pytest.raises(DataError, match="operator ReduceMean cannot be brought from opset 11 to 18"):
        imported(saved(tmp_path, model), x)


def _graph(nodes: list[onnx.NodeProto], inputs: dict[str, list[Any]], output: int = TensorProto.FLOAT) -> Any:  # noqa: ANN401 - an onnx proto
    taken = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    graph = helper.make_graph(nodes, "g", taken, [helper.make_tensor_value_info("y", output, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_several_inputs_keep_their_open_sizes(tmp_path: Path) -> None:
    model = _graph([helper.make_node("Add", ["left", "right"], ["y"])], {"left": ["N", "L"], "right": ["N", "L"]})
    path = saved(tmp_path, model)
    with pytest.raises(DataError, match=r"--input-shape is for one input, the model has 2 \(left, right\)"):
        read_model(path, (4,))
    foreign = read_model(path)
    arrays = {name: np.full((3, 5), value, np.float32) for name, value in (("left", 1), ("right", 2))}
    found = prepare(foreign, Samples(path, arrays, None, None, foreign.inputs)).model
    assert [value.type.tensor_type.shape.dim[1].dim_value for value in found.graph.input] == [0, 0]
    wider = {name: np.ones((1, 9), np.float32) for name in arrays}
    session = ort.InferenceSession(found.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, wider)[0], np.full((1, 9), 2, np.float32))


def test_a_fixed_batch_above_one_is_refused(tmp_path: Path, make_foreign: Net) -> None:
    with pytest.raises(DataError, match="batches of exactly 4"):
        read_model(saved(tmp_path, make_foreign(batch=4)))


def test_a_quantized_model_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "quant")
    restored = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])
    with pytest.raises(DataError, match="already quantized: it has DynamicQuantizeLinear 'quant'"):
        read_model(saved(tmp_path, _graph([node, restored], {"x": ["N", 4]})))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.onnx"):
        read_model(tmp_path / "gone.onnx")
    with pytest.raises(DataError, match="onnxruntime cannot load it"):
        read_model(saved(tmp_path, _graph([helper.make_node("Relu", ["nothing"], ["y"])], {"x": ["N", 4]})))
    with pytest.raises(DataError, match="declares no batch and sizes"):
        read_model(saved(tmp_path, _graph([helper.make_node("Relu", ["x"], ["y"])], {"x": []})))


def test_sizes_given_must_fit_what_the_model_declares(tmp_path: Path, make_foreign: Net) -> None:
    path = saved(tmp_path, make_foreign(side="size"))
    assert read_model(path).inputs == (InputSpec("x", "float32", (3, None, None)),)
    assert read_model(path, (3, 8, 8)).inputs[0].shape == (3, 8, 8)
    for wrong in ((1, 8, 8), (8, 8)):
        with pytest.raises(DataError, match="--input-shape"):
            read_model(path, wrong)


def test_classes_are_those_of_the_tensor_that_is_compared(tmp_path: Path) -> None:
    weight = onnx.numpy_helper.from_array(np.eye(6, 4, dtype=np.float32), "w")
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("MatMul", ["y", "w"], ["logits"])]
    model = _graph(nodes, {"x": ["N", 6]})
    model.graph.initializer.append(weight)
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4]))
    found = imported(saved(tmp_path, model), np.ones((2, 6), np.float32))
    assert (found.tensor, found.outputs) == ("logits", 4)
    assert "compared on 'logits'; the model has 2 outputs" in found.notes[0]


def test_an_output_without_a_shape_gets_its_rank(tmp_path: Path) -> None:
    found = imported(
        saved(tmp_path, _graph([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 4]})), np.ones((2, 4), np.float32)
    )
    assert len(found.model.graph.output[0].type.tensor_type.shape.dim) == 2


@pytest.mark.parametrize("opset", [13, 18])
def test_what_a_contrib_operator_makes_gets_its_rank_and_is_quantized(tmp_path: Path, opset: int) -> None:
    rng, node = np.random.default_rng(0), helper.make_node
    sizes = {"w1": (16, 24), "w2": (24, 16), "b2": (16,)}
    arrays = {name: (rng.normal(size=size) / 4).astype(np.float32) for name, size in sizes.items()}
    nodes = [
        node("MatMul", ["x", "w1"], ["m1"], "m1"),
        node("Gelu", ["m1"], ["g"], "g", domain="com.microsoft"),
        node("MatMul", ["g", "w2"], ["m2"], "m2"),
        node("Add", ["m2", "b2"], ["y"], "y"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 5, 16]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    values = rng.normal(size=(16, 5, 16)).astype(np.float32)
    found = imported(saved(tmp_path, helper.make_model(graph, opset_imports=opsets, ir_version=8)), values)
    made = quantize_static(found.model, PLACEMENT, values, static_method("gptq", 8))
    assert {skip.layer: skip.reason for skip in made.skips}["g"].startswith("com.microsoft.Gelu")
    kinds = {name: node.op_type for node in made.model.graph.node for name in node.output}
    products = [node for node in made.model.graph.node if node.op_type == "MatMul"]
    assert [[kinds[name] for name in node.input] for node in products] == [["DequantizeLinear"] * 2] * 2


def test_an_operator_that_the_runtime_lacks_is_told(tmp_path: Path) -> None:
    model = _graph([helper.make_node("Magic", ["x"], ["y"], domain="nobody")], {"x": ["N", 4]})
    model.opset_import.append(helper.make_opsetid("nobody", 1))
    with pytest.raises(DataError, match=r"onnxruntime cannot load it: .*Magic"):
        imported(saved(tmp_path, model), np.zeros((2, 4), np.float32))


def test_decisions_instead_of_scores_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("ArgMax", ["x"], ["y"], axis=1)
    with pytest.raises(DataError, match="output 'y' is int64"):
        imported(saved(tmp_path, _graph([node], {"x": ["N", 4]}, TensorProto.INT64)), np.ones((2, 4), np.float32))


def test_a_graph_that_mixes_its_batch_is_refused(tmp_path: Path) -> None:
    centred = [helper.make_node("ReduceMean", ["x", "zero"], ["m"]), helper.make_node("Sub", ["x", "m"], ["y"])]
    model = _graph(centred, {"x": ["N", 4]})
    model.graph.initializer.append(helper.make_tensor("zero", TensorProto.INT64, [1], [0]))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    with pytest.raises(DataError, match="in batches the graph's output 'y' differs by 2"):
        imported(saved(tmp_path, model), x)


def test_functions_of_an_old_opset_are_inlined(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 15, "custom" : 1]>
        g (float[N,6] x) => (float[N,3] y) { h = Gemm(x, w) y = custom.Act(h) }
        <domain: "custom", opset_import: ["" : 15]> Act (a) => (b) { b = Relu(a) }"""
    )
    weight = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    found = imported(saved(tmp_path, model), np.ones((4, 6), np.float32))
    assert [node.op_type for node in found.model.graph.node] == ["Gemm", "Relu"]


def test_a_rank_that_inference_does_not_know_is_found_by_running(tmp_path: Path) -> None:
    """Shape inference knows none of a GroupNormalization, and none of what comes behind it."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,6,6] x) => (float[N,4] y) {
        a = Conv(x, first) n = GroupNormalization<num_groups=2>(a, scale, bias) b = Conv(n, second)
        p = GlobalAveragePool(b) y = Flatten(p) }"""
    )
    arrays = {"first": rng.normal(size=(4, 3, 3, 3)), "second": rng.normal(size=(4, 4, 3, 3))}
    arrays |= {"scale": np.ones(4), "bias": np.zeros(4)}
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()
    )
    model.graph.name = ""
    x = rng.normal(size=(12, 3, 6, 6)).astype(np.float32)
    prepared = imported(saved(tmp_path, model), x)
    made = quantize_static(prepared.model, PLACEMENT, x, static_method("minmax", 8))
    assert [node.op_type for node in made.model.graph.node].count("DequantizeLinear") >= 4


def test_what_onnx_takes_back_is_refused_at_once(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]> g (float[N,4] x) => (float[N,4] y) {
        y = GroupNormalization<num_groups=2>(x, scale, scale) }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "scale"))
    with pytest.raises(DataError, match=r"checker refuses it: .*GroupNormalization is deprecated"):
        imported(saved(tmp_path, model), np.ones((2, 4), np.float32))


def test_outputs_that_differ_in_shape_are_refused(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[1,6] x) => (int64[2,n] y) { y = NonZero(x) }'
    )
    x = np.eye(6, dtype=np.float32)
    x[1] = 1
    with pytest.raises(DataError, match="expected float32"):
        imported(saved(tmp_path, model), x)


def test_inputs_of_different_batches_are_told_apart(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[1,6] a, float[N,6] b) => (float[N,6] y) { y = Add(a, b) }'
    )
    with pytest.raises(DataError, match="input 'b' takes batches of any size, 'a' of exactly 1"):
        read_model(saved(tmp_path, model), None)


def test_an_input_may_be_called_logits(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]> g (float[N,6] logits) => (float[N,3] y) {
        h = Gemm(logits, w) y = Softmax<axis=1>(h) }"""
    )
    weight = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    found = imported(saved(tmp_path, model), np.ones((4, 6), np.float32))
    assert found.tensor == "y"

"""TensorRT's rules one by one, on graphs that hold little else.

Where Q must stand was worked out by hand from NVIDIA's "Working with Quantized Types", Q/DQ layer-placement
recommendations, and from what its Model-Optimizer leaves out; not from the code.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeft.graph.execute import open_session
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.tensorrt import TensorRtExporter
from edgeft_exporters.tensorrt.conformance import breaches
from edgeft_exporters.tensorrt.costs import costs
from edgeft_exporters.tensorrt.placement import PLACEMENT


def op(op_type: str, made: str, *inputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, list(inputs), [made], made, **attributes)


def conv(made: str, x: str, weight: str, **attributes: object) -> list[onnx.NodeProto]:
    return [op("Conv", f"{made}.conv", x, weight, **attributes), op("Relu", made, f"{made}.conv")]


W = (32, 32, 1, 1)
D = (32, 32)
SHAPE = {"allowzero": 0}


@dataclass(frozen=True)
class Case:
    nodes: list[onnx.NodeProto]
    weights: dict[str, tuple[int, ...]]
    quantized: set[str]
    """The tensors that a QuantizeLinear reads."""
    shape: tuple[int, ...] = (32, 8, 8)


IDENTITY = [*conv("a", "x", "wa"), op("Conv", "b", "a", "wb"), op("Add", "s", "b", "x"), *conv("y", "s", "wy")]
CASES = {
    "an identity shortcut shares the Q of the block's input": Case(
        IDENTITY, {"wa": W, "wb": W, "wy": W}, {"x", "a", "s"}
    ),
    "a downsampling shortcut has a Q of its own": Case(
        [
            *conv("a", "x", "wa", strides=[2, 2]),
            op("Conv", "b", "a", "wb"),
            op("Conv", "down", "x", "wd", strides=[2, 2]),
            op("Add", "s", "b", "down"),
            *conv("y", "s", "wy"),
        ],
        {"wa": W, "wb": W, "wd": W, "wy": W},
        {"x", "a", "down", "s"},
    ),
    "Concat is quantized once, behind it": Case(
        [*conv("a", "x", "wa"), *conv("b", "x", "wb"), op("Concat", "c", "a", "b", axis=1), *conv("y", "c", "wy")],
        {"wa": W, "wb": W, "wy": (32, 64, 1, 1)},
        {"x", "c"},
    ),
    "MaxPool commutes with the Q behind it": Case(
        [*conv("a", "x", "wa"), op("MaxPool", "p", "a", kernel_shape=[2, 2], strides=[2, 2]), *conv("y", "p", "wy")],
        {"wa": W, "wy": W},
        {"x", "p"},
    ),
    "AveragePool reads floats": Case(
        [
            *conv("a", "x", "wa"),
            op("AveragePool", "p", "a", kernel_shape=[2, 2], strides=[2, 2]),
            *conv("y", "p", "wy"),
        ],
        {"wa": W, "wy": W},
        {"x", "p"},
    ),
    "the gate of squeeze and excite reads floats": Case(
        [
            *conv("e", "x", "we"),
            op("GlobalAveragePool", "p", "e"),
            *conv("q", "p", "wq"),
            op("Conv", "r", "q", "wr"),
            op("Sigmoid", "g", "r"),
            op("Mul", "m", "e", "g"),
            *conv("y", "m", "wy"),
        ],
        {"we": W, "wq": (16, 32, 1, 1), "wr": (32, 16, 1, 1), "wy": W},
        {"x", "p", "q", "m"},
    ),
    "the core of an attention is float, as are LayerNorm and Softmax": Case(
        [
            op("LayerNormalization", "n", "x", "scale", "bias"),
            *(op("MatMul", name, "n", f"w{name}") for name in ("q", "k", "v")),
            op("Transpose", "kt", "k", perm=[0, 2, 1]),
            op("MatMul", "qk", "q", "kt"),
            op("Softmax", "p", "qk", axis=-1),
            op("MatMul", "o", "p", "v"),
            op("MatMul", "y", "o", "wy"),
        ],
        {"scale": (32,), "bias": (32,), "wq": D, "wk": D, "wv": D, "wy": D},
        {"n", "o"},
        shape=(20, 32),
    ),
    "a depthwise convolution takes integers, whatever its channels per group": Case(
        [*conv("e", "x", "we"), *conv("d", "e", "wd", group=32, pads=[1, 1, 1, 1]), *conv("y", "d", "wy")],
        {"we": W, "wd": (32, 1, 3, 3), "wy": W},
        {"x", "e", "d"},
    ),
    "the first layer takes integers, another of few channels does not": Case(
        [*conv("a", "x", "wa"), *conv("b", "a", "wb"), *conv("c", "b", "wc"), *conv("y", "c", "wy")],
        {"wa": (32, 3, 1, 1), "wb": (8, 32, 1, 1), "wc": (32, 8, 1, 1), "wy": W},
        {"x", "c"},
        shape=(3, 8, 8),
    ),
    "a matrix times a vector stays float": Case(
        [
            *conv("a", "x", "wa"),
            op("GlobalAveragePool", "p", "a"),
            op("Flatten", "f", "p"),
            op("Gemm", "y", "f", "wy", transB=1),
        ],
        {"wa": W, "wy": (100, 32)},
        {"x"},
    ),
}


def float_graph(case: Case) -> onnx.ModelProto:
    rng, value = np.random.default_rng(0), helper.make_tensor_value_info
    arrays = [
        numpy_helper.from_array(
            (rng.normal(size=shape) * (2 / np.prod(shape[1:])) ** 0.5 if shape[1:] else rng.uniform(0.5, 1.5, shape))
            .astype(np.float32),
            name,
        )
        for name, shape in case.weights.items()
    ]  # fmt: skip
    inputs, outputs = [value("x", 1, ["N", *case.shape])], [value("y", 1, None)]
    graph = helper.make_graph(case.nodes, "case", inputs, outputs, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def data(case: Case, count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, *case.shape)).astype(np.float32)


def quantized(case: Case) -> onnx.ModelProto:
    return quantize_static(float_graph(case), PLACEMENT, data(case, 32), static_method("minmax", 16)).model


def typed(model: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def sqnr_db(expected: np.ndarray, found: np.ndarray) -> float:
    noise = np.square(expected.astype(np.float64) - found.astype(np.float64)).sum()
    return float(10 * np.log10(np.square(expected.astype(np.float64)).sum() / noise)) if noise else float("inf")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_q_stands_where_nvidia_says(case: Case) -> None:
    model = quantized(case)
    assert {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"} == case.quantized


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_lint_has_nothing_to_say(case: Case) -> None:
    model = typed(quantized(case))
    assert breaches(model) == ()
    assert costs(model) == ()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_lowered_graphs_answer_as_onnx_own_evaluator_and_near_float(case: Case, tmp_path: Path) -> None:
    model, x = quantized(case), data(case, 8)
    onnx.save(model, tmp_path / "int8.onnx")
    lowered = onnx.load(TensorRtExporter().lower(tmp_path / "int8.onnx", tmp_path / "out")[0])
    expected = open_session(float_graph(case), 1).run(None, {"x": x})[0]
    for graph in (model, lowered):
        by_node = open_session(graph, 1, optimise=False).run(None, {"x": x})[0]
        reference = np.asarray(ReferenceEvaluator(graph).run(None, {"x": x})[0])
        assert by_node.dtype == reference.dtype == np.float32
        assert sqnr_db(reference, by_node) > 40  # sums in another order move single ties, by one step of an integer
        assert sqnr_db(expected, by_node) > 20  # 8 bits over a few layers: 6 dB for each bit, less what peaks cost


def test_only_the_shortcut_of_an_add_is_dequantized() -> None:
    model = quantized(CASES["an identity shortcut shares the Q of the block's input"])
    (add,) = [node for node in model.graph.node if node.op_type == "Add"]
    assert list(add.input) == ["b", "x::dq"]


def test_weights_have_a_scale_for_each_output_channel_and_activations_one() -> None:
    case = CASES["a depthwise convolution takes integers, whatever its channels per group"]
    model = quantized(case)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    by_output = {node.output[0]: node for node in model.graph.node}
    for name in ("e.conv", "d.conv", "y.conv"):
        pair = by_output[by_output[name].input[1]]
        assert arrays[pair.input[1]].shape == (32,)
        assert [each.i for each in pair.attribute if each.name == "axis"] == [0]
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert arrays[node.input[1]].size == 1


# What other tools write, and what the lint says of it.

PAIR = {"q.scale": np.float32(0.05), "q.zero": np.int8(0)}


def pair(made: str, x: str, scale: str = "q.scale", zero: str = "q.zero") -> list[onnx.NodeProto]:
    return [
        op("QuantizeLinear", f"{made}.q", x, scale, zero),
        op("DequantizeLinear", made, f"{made}.q", scale, zero),
    ]


def weight(made: str, shape: tuple[int, ...], axis: int = 0) -> tuple[onnx.NodeProto, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    arrays = {
        f"{made}.w": rng.integers(-127, 128, shape).astype(np.int8),
        f"{made}.s": np.full(shape[axis], 0.01, np.float32),
        f"{made}.z": np.zeros(shape[axis], np.int8),
    }
    return op("DequantizeLinear", made, *arrays, axis=axis), arrays


def foreign(
    nodes: list[onnx.NodeProto], arrays: dict[str, np.ndarray], shape: tuple[int, ...] = (32, 8, 8), opset: int = 20
) -> ir.Model:
    value = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (PAIR | arrays).items()]
    graph = helper.make_graph(nodes, "foreign", [value("x", 1, ["N", *shape])], [value("y", 1, None)], tensors)
    return typed(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10))


WEIGHT, WEIGHTS = weight("w", W)
CONV = [*pair("d", "x"), WEIGHT, op("Conv", "c", "d", "w")]
VECTOR = {"v.scale": np.full(32, 0.05, np.float32), "v.zero": np.zeros(32, np.int8)}
TURNED, TURNED_WEIGHTS = weight("t", W, axis=0)
FEW, FEW_WEIGHTS = weight("f", (8, 32, 1, 1))
OTHER = {"o.scale": np.float32(0.1), "o.zero": np.int8(0)}
NORM = {"n.s": np.ones(8, np.float32), "n.b": np.zeros(8, np.float32)}
BATCH_NORM = {f"b{index}": np.ones(32, np.float32) for index in range(4)}

BREACHES = {
    "an activation has 32 scales": ([*pair("y", "x", "v.scale", "v.zero")], VECTOR),
    "a scale is 0 or negative": ([*pair("y", "x", "n.scale")], {"n.scale": np.float32(-0.1)}),
    "it has 1 scales and 32 zero points": ([*pair("y", "x", "q.scale", "v.zero")], VECTOR),
    "its weight scales run along another axis than 1": (
        [*pair("d", "x"), TURNED, op("ConvTranspose", "y", "d", "t")],
        TURNED_WEIGHTS,
    ),
    "its own output is quantized": ([*CONV, *pair("y", "c")], WEIGHTS),
    "its scale is computed": ([op("ReduceMax", "m", "x", keepdims=0), *pair("y", "x", "m")], {}),
}
COSTS = {
    "integers come in, floats go out: it runs in float": (
        [*pair("d", "x"), op("AveragePool", "y", "d", kernel_shape=[2, 2])],
        {},
    ),
    "its inputs and output have different scales": (
        [
            *pair("d", "x"),
            op("Relu", "r", "x"),
            *pair("e", "r", "o.scale", "o.zero"),
            op("Concat", "c", "d", "e", axis=1),
            *pair("y", "c"),
        ],
        OTHER,
    ),
    "it is computed in float, and its input is quantized": (
        [*pair("d", "x"), op("LayerNormalization", "y", "d", "n.s", "n.b")],
        NORM,
    ),
    "its shortcut is float beside a quantized convolution": ([*CONV, op("Add", "y", "c", "x")], WEIGHTS),
    "it stands behind a quantized convolution": (
        [*CONV, op("BatchNormalization", "y", "c", *BATCH_NORM)],
        WEIGHTS | BATCH_NORM,
    ),
    "both of its inputs are computed: the core of an attention": (
        [*pair("d", "x"), op("Relu", "r", "x"), *pair("e", "r"), op("MatMul", "y", "d", "e")],
        {},
    ),
    "tensorrt gains nothing below 16 channels: its weight is [8, 32, 1, 1]": (
        [*pair("d", "x"), FEW, op("Conv", "y", "d", "f")],
        FEW_WEIGHTS,
    ),
}


@pytest.mark.parametrize(("expected", "graph"), BREACHES.items(), ids=BREACHES)
def test_a_breach_is_named(expected: str, graph: tuple[list[onnx.NodeProto], dict[str, np.ndarray]]) -> None:
    assert expected in {finding.reason for finding in breaches(foreign(*graph))}


@pytest.mark.parametrize(("expected", "graph"), COSTS.items(), ids=COSTS)
def test_a_cost_is_named_and_is_no_breach(
    expected: str, graph: tuple[list[onnx.NodeProto], dict[str, np.ndarray]]
) -> None:
    model = foreign(*graph)
    assert breaches(model) == ()
    assert [finding.reason for finding in costs(model)] == [expected]


def test_scales_along_an_axis_need_opset_13() -> None:
    nodes = [*pair("d", "x"), op("DequantizeLinear", "w", *WEIGHTS), op("Conv", "y", "d", "w")]
    assert "opset 12 does not hold such scales" in {each.reason for each in breaches(foreign(nodes, WEIGHTS, opset=12))}


def test_pixels_that_are_no_more_than_moved_are_a_breach() -> None:
    nodes = [op("Cast", "u", "x", to=2), op("Transpose", "y", "u", perm=[0, 2, 3, 1])]
    assert [each.reason for each in breaches(foreign(nodes, {}))] == ["it reads uint8, which a Cast alone may"]


def test_a_concat_of_one_scale_costs_nothing() -> None:
    nodes = [
        *pair("d", "x"),
        op("Relu", "r", "x"),
        *pair("e", "r"),
        op("Concat", "c", "d", "e", axis=1),
        *pair("y", "c"),
    ]
    assert costs(foreign(nodes, {})) == ()

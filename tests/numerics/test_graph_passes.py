"""Laws of the graph passes on random graphs: outputs stay, names and types of inputs and outputs stay, twice is once.

Outputs are compared through onnxruntime with its optimiser off: every node runs as it is written.
"""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from edgeft.graph.passes.flatten_reshapes import flatten_reshapes_
from edgeft.graph.passes.forget_origin import forget_origin_
from edgeft.graph.passes.merge_common import merge_common_
from edgeft.graph.passes.name_layers import name_layers_
from edgeft.graph.passes.plain_reshapes import plain_reshapes_
from edgeft.graph.passes.pool_spatial_means import pool_spatial_means_
from edgeft.graph.passes.remove_identities import remove_identities_
from edgeft.graph.passes.report import PassReport
from edgeft.graph.simplify import simplify_

_RTOL = 1e-4
"""Folding a BatchNorm moves one rounding per weight (6e-8); eight layers of sums over 54 products stay far below."""
_BLOCKS = (
    "conv",
    "conv_bn",
    "conv_zero_bn",
    "depthwise",
    "relu",
    "clip",
    "clip_clip",
    "relu_clip",
    "clip_relu",
    "min_max",
    "max_min",
    "identity",
    "residual",
    "twice",
    "pad_conv",
    "pad_conv_bn",
    "squeeze_excite",
    "pool",
)
_HEADS = ("mean_keep_reshape", "mean_drop", "mean_negative_axes", "reshape", "mean_channel", "matmul_add")
_SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Builder:
    """A random network of [N, C, 6, 6] tensors, written as exporters write them: identities, dynamic names."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: list[onnx.TensorProto] = []
        self.channels, self.count = 3, 0
        self.arrays.append(numpy_helper.from_array(np.zeros(4, np.float32), "zero_bias"))  # shared, as exporters do

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}_{self.count}"

    def const(self, array: np.ndarray, stem: str = "c") -> str:
        self.arrays.append(numpy_helper.from_array(array, self.name(stem)))
        return self.arrays[-1].name

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def add(self, op_type: str, *inputs: str, **attributes: object) -> str:
        output = self.name("t")
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], self.name("n"), **attributes))
        return output

    def conv(self, x: str, *bias: str, groups: int = 1, pads: int = 1) -> str:
        out = self.channels if groups > 1 else 4
        shape = (out, self.channels // groups, 3, 3)
        weight = self.const(self.rng.normal(0, 0.2, shape).astype(np.float32), "layer.weight")
        self.channels = out
        return self.add("Conv", x, weight, *bias, group=groups, pads=[pads] * 4)

    def block(self, kind: str, x: str) -> str:
        blocks: dict[str, Callable[[], str]] = {
            "conv": lambda: self.conv(x),
            "conv_bn": lambda: self.batch_norm(self.conv(x)),
            "conv_zero_bn": lambda: self.batch_norm(self.conv(x, "zero_bias")),
            "depthwise": lambda: self.batch_norm(self.conv(x, groups=self.channels)),
            "relu": lambda: self.add("Relu", x),
            "clip": lambda: self.clip(x, 0, 6),
            "clip_clip": lambda: self.clip(self.clip(x, -1, 6), 0, 3),
            "relu_clip": lambda: self.clip(self.add("Relu", x), -1, 6),
            "clip_relu": lambda: self.add("Relu", self.clip(x, -1, 6)),
            "min_max": lambda: self.bound("Max", self.bound("Min", x, 6), 0),
            "max_min": lambda: self.bound("Min", self.bound("Max", x, 0), 6),
            "identity": lambda: self.add("Identity", x),
            "residual": lambda: self.add("Add", x, self.add("Relu", x)),
            "twice": lambda: self.add("Add", self.add("Neg", self.add("Abs", x)), self.add("Neg", self.add("Abs", x))),
            "pad_conv": lambda: self.conv(self.add("Pad", x, self.ints(0, 0, 1, 1, 0, 0, 1, 1)), pads=0),
            "pad_conv_bn": lambda: self.batch_norm(self.block("pad_conv", x)),
            "squeeze_excite": lambda: self.add("Mul", x, self.add("Sigmoid", self.mean(x, 2, 3, keepdims=1))),
            "pool": lambda: self.add("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        }
        return blocks[kind]()

    def clip(self, x: str, low: float, high: float) -> str:
        return self.add("Clip", x, self.const(np.float32(low)), self.const(np.float32(high)))

    def bound(self, op_type: str, x: str, value: float) -> str:
        return self.add(op_type, x, self.const(np.float32(value)))

    def mean(self, x: str, *axes: int, keepdims: int) -> str:
        return self.add("ReduceMean", x, self.ints(*axes), keepdims=keepdims)

    def batch_norm(self, x: str) -> str:
        draw = [self.rng.uniform(low, high, self.channels) for low, high in ((0.5, 2), (-1, 1), (-1, 1), (0.5, 2))]
        return self.add("BatchNormalization", x, *(self.const(value.astype(np.float32)) for value in draw))

    def head(self, kind: str, x: str) -> str:
        heads: dict[str, Callable[[], str]] = {
            "mean_keep_reshape": lambda: self.add(
                "Reshape", self.mean(x, -1, -2, keepdims=1), self.ints(-1, self.channels), allowzero=1
            ),
            "mean_drop": lambda: self.mean(x, 2, 3, keepdims=0),
            "mean_negative_axes": lambda: self.mean(x, -2, -1, keepdims=0),
            "mean_channel": lambda: self.add("Reshape", self.mean(x, 1, keepdims=0), self.ints(0, 36)),
            "reshape": lambda: self.add("Reshape", x, self.ints(0, self.channels * 36)),
            "matmul_add": lambda: self.linear(self.add("Reshape", x, self.ints(0, self.channels * 36))),
        }
        return heads[kind]()

    def linear(self, x: str) -> str:
        weight = self.const(self.rng.normal(0, 0.1, (self.channels * 36, 5)).astype(np.float32), "head.weight")
        return self.add("Add", self.add("MatMul", x, weight), self.const(np.ones(5, np.float32)))

    def model(self, output: str) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "features"])
        self.nodes.append(helper.make_node("Identity", [output], ["y"], "last"))
        graph = helper.make_graph(self.nodes, "random", [x], [y], self.arrays, doc_string="from /home/someone/model.py")
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)


@st.composite
def random_models(draw: st.DrawFn) -> onnx.ModelProto:
    builder = Builder(draw(st.integers(0, 2**16)))
    x = "x"
    for kind in draw(st.lists(st.sampled_from(_BLOCKS), max_size=8)):
        x = builder.block(kind, x)
    return builder.model(builder.head(draw(st.sampled_from(_HEADS)), x))


def run(model: ir.Model | onnx.ModelProto, count: int = 3) -> np.ndarray:
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(count).normal(0, 1, (count, 3, 6, 6)).astype(np.float32)
    return session.run(["y"], {"x": x})[0]


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=_RTOL * max(1.0, float(np.abs(expected).max())))


def signature(model: ir.Model) -> list[tuple[str | None, ir.DataType | None]]:
    return [(value.name, value.dtype) for value in (*model.graph.inputs, *model.graph.outputs)]


@_SETTINGS
@given(random_models())
def test_simplify_keeps_outputs_and_signature(proto: onnx.ModelProto) -> None:
    model = ir.from_proto(proto)
    before = signature(model)
    simplify_(model)
    assert signature(model) == before
    for count in (1, 3):
        assert_same(run(model, count), run(proto, count))


@_SETTINGS
@given(random_models())
def test_simplify_twice_is_simplify_once(proto: onnx.ModelProto) -> None:
    model = ir.from_proto(proto)
    simplify_(model)
    once = ir.to_proto(model).SerializeToString(deterministic=True)
    assert not any(simplify_(model))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == once


@_SETTINGS
@given(random_models())
def test_simplify_leaves_none_of_what_it_promises_to_remove(proto: onnx.ModelProto) -> None:
    model = ir.from_proto(proto)
    simplify_(model)
    left = {node.op_type for node in model.graph}
    assert not left & {"BatchNormalization", "Constant", "MatMul", "Identity", "Pad", "Min", "Max"}
    computed = [
        (node.op_type, *(value.name for value in node.inputs if value), *map(str, node.attributes.values()))
        for node in model.graph
    ]
    assert len(set(computed)) == len(computed)
    spatial = [node for node in model.graph if node.op_type == "ReduceMean" and len(node.inputs[0].shape) == 4]
    assert all(list(node.inputs[1].const_value.numpy()) == [1] for node in spatial)


_PASSES = (
    *(pool_spatial_means_, flatten_reshapes_, name_layers_, forget_origin_),
    *(merge_common_, remove_identities_, plain_reshapes_),
)


@pytest.mark.parametrize("run_pass", _PASSES, ids=lambda run_pass: run_pass.__name__)
@_SETTINGS
@given(proto=random_models())
def test_a_pass_keeps_outputs_and_twice_is_once(
    run_pass: Callable[[ir.Model], PassReport], proto: onnx.ModelProto
) -> None:
    model = ir.from_proto(proto)
    before = signature(model)
    run_pass(model)
    assert signature(model) == before
    assert_same(run(model), run(proto))
    once = ir.to_proto(model).SerializeToString(deterministic=True)
    assert not run_pass(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == once


@_SETTINGS
@given(random_models())
def test_names_are_unique_and_origin_is_forgotten(proto: onnx.ModelProto) -> None:
    model = ir.from_proto(proto)
    name_layers_(model)
    forget_origin_(model)
    nodes = [node.name for node in model.graph]
    assert len(set(nodes)) == len(nodes)
    assert b"/home" not in ir.to_proto(model).SerializeToString()


def small(body: str, constants: dict[str, np.ndarray], *outputs: str) -> onnx.ModelProto:
    """A model of x [N, 3, 6, 6] written as text, for a case that random models do not hold."""
    text = f'<ir_version: 10, opset_import: ["" : 20]> g (float[N,3,6,6] x) => (float[N,C,H,W] y) {{ {body} }}'
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    for name in outputs:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return onnx.shape_inference.infer_shapes(model)


def simplified(proto: onnx.ModelProto) -> onnx.ModelProto:
    model = ir.from_proto(proto)
    simplify_(model)
    return ir.to_proto(model)


def evaluated(proto: onnx.ModelProto) -> list[np.ndarray]:
    """Return all outputs by onnx's reference: onnxruntime refuses automatic padding of dilated kernels."""
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype(np.float32)
    return ReferenceEvaluator(proto).run(None, {"x": x})


WEIGHTS = {
    "w": np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype(np.float32),
    "b": np.random.default_rng(2).normal(size=4).astype(np.float32),
}


@pytest.mark.parametrize("pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("dilations", "strides"), [("1, 1", "2, 2"), ("2, 2", "1, 1"), ("1, 2", "2, 1")])
def test_automatic_padding_of_dilated_kernels_keeps_outputs(pad: str, dilations: str, strides: str) -> None:
    proto = small(f'y = Conv<auto_pad="{pad}", dilations=[{dilations}], strides=[{strides}]>(x, w, b)', WEIGHTS)
    for found, expected in zip(evaluated(simplified(proto)), evaluated(proto), strict=True):
        assert_same(found, expected)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize(
    "body",
    ["c = Conv(x, w, b) m = Mul(c, s) y = Add(m, o)", "m = Mul(x, s) a = Add(m, o) y = Conv<pads=[0,0,0,0]>(a, w, b)"],
)
def test_scalars_of_any_rank_around_a_conv_keep_outputs(body: str, shape: tuple[int, ...]) -> None:
    constants = {"s": np.full(shape, 2, np.float32), "o": np.full(shape, 3, np.float32)}
    proto = small(body, WEIGHTS | constants)
    assert_same(run(simplified(proto)), run(proto))


_BEHIND = "c = Conv(x, w, b) m = Mul(c, s) y = Add(m, o) d = Conv(x, w, b) n = Mul(d, t) z = Add(n, p)"
_BEFORE = "m = Mul(x, s) a = Add(m, o) n = Mul(x, t) c = Add(n, p) y = Conv<{0}>(a, w, b) z = Conv<{0}>(c, w, b)"


@pytest.mark.parametrize("body", [_BEHIND, _BEFORE.format("pads=[0,0,0,0]")], ids=["behind", "before"])
def test_convolutions_that_share_weights_keep_outputs(body: str) -> None:
    constants = {name: np.float32(value) for name, value in zip("stop", (2, 3, 5, 7), strict=True)}
    proto = small(body, WEIGHTS | constants, "z")
    onnx.checker.check_model(simplified(proto), full_check=True)
    for found, expected in zip(evaluated(simplified(proto)), evaluated(proto), strict=True):
        assert_same(found, expected)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("y = Neg(x) z = Identity(y)", ("z",)),
        ("y = Neg(x) z = Identity(y) a = Relu(z)", ("z", "a")),
        ("a = Identity(x) y = Identity(a)", ()),
        ("y = Neg(x) z = Neg(x)", ("z",)),
        ("a = Neg(x) y = Relu(a) b = Neg(x) z = Relu(b)", ("z",)),
        ("a = Neg(x) y = Identity(a) z = Identity(a)", ("z",)),
    ],
)
def test_outputs_that_are_the_same_tensor_keep_their_names(body: str, outputs: tuple[str, ...]) -> None:
    proto = small(body, {}, *outputs)
    found = simplified(proto)
    assert [value.name for value in found.graph.output] == [value.name for value in proto.graph.output]
    for one, other in zip(evaluated(found), evaluated(proto), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(
    "body",
    [
        "a = Relu(x) b = Add(a, small) y = Log(b)",
        "a = Relu(x) b = Sub(a, small) y = Neg(b)",
        "a = Mul(x, near) y = Neg(a)",
        "a = Div(x, near) y = Neg(a)",
    ],
)
def test_what_is_nearly_nothing_stays(body: str) -> None:
    """A mel spectrum's logarithm is finite at silence by 1e-10."""
    near = np.float32(1.000009)
    found = simplified(small(body, {"small": np.float32(1e-10), "near": near}))
    assert [node.op_type for node in found.graph.node] == [node.op_type for node in small(body, {}).graph.node]
    nothing = simplified(small(body, {"small": np.float32(0), "near": np.float32(1)}))
    assert len(nothing.graph.node) == len(found.graph.node) - 1


@pytest.mark.parametrize(
    ("weight", "added", "gemm"),
    [((6, 8), (8,), 1), ((6, 8), (1, 8), 1), ((6, 8), (1, 1, 8), 0), ((6, 8), (7, 8), 0), ((6, 1), (8,), 0)],
)
def test_what_gemm_cannot_add_is_added_behind_it(weight: tuple[int, ...], added: tuple[int, ...], gemm: int) -> None:
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[1,6] x) => (float y) { p = MatMul(x, w) y = Add(p, c) }'
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=weight).astype(np.float32), "c": rng.normal(size=added).astype(np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    model = onnx.shape_inference.infer_shapes(model)
    found = simplified(model)
    assert [node.op_type for node in found.graph.node].count("Gemm") == gemm
    x = rng.normal(size=(1, 6)).astype(np.float32)
    expected = x @ arrays["w"] + arrays["c"]
    session = ort.InferenceSession(found.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-5, atol=1e-5)

"""Fake quantization in torch: the integers are ONNX's, the gradients are those of Esser et al. 2020."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeft.graph.module import GraphModule
from edgeft.quantize.affine import AffineParams, PerAxis, PerTensor, dequantize, quantize
from edgeft.quantize.placement import IntegerType


def pair(scale: np.ndarray, zero_point: np.ndarray, rank: int) -> GraphModule:
    """Return x -> Q -> DQ -> y, its scale trainable; axis 1 where the scale is a vector."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name in "xy")
    arrays = [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(zero_point, "z")]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "pair", [x], [y], arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return GraphModule(ir.from_proto(model), trainable=["s"])


@st.composite
def params(draw: st.DrawFn) -> AffineParams:
    dtype = draw(st.sampled_from([IntegerType.U8, IntegerType.S8]))
    limits = np.iinfo(dtype.value)
    count = draw(st.sampled_from([0, 3]))
    scales = st.floats(2.0**-20, 2.0**10, width=32)
    if not count:
        zero = np.asarray(draw(st.integers(int(limits.min), int(limits.max))), dtype.value)
        return AffineParams(np.asarray(draw(scales), np.float32), zero, dtype, PerTensor())
    scale = np.asarray(draw(st.lists(scales, min_size=count, max_size=count)), np.float32)
    zeros = st.lists(st.integers(int(limits.min), int(limits.max)), min_size=count, max_size=count)
    return AffineParams(scale, np.asarray(draw(zeros), dtype.value), dtype, PerAxis(1))


@settings(max_examples=60, deadline=None)
@given(params(), st.integers(0, 2**32 - 1))
def test_the_integers_and_what_they_stand_for_are_those_of_onnx(chosen: AffineParams, seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = np.rint(rng.normal(0, 150, (4, 3, 2))) + rng.choice([0.0, 0.5, 0.25], (4, 3, 2))  # half of them ties
    x = (steps * chosen.along(chosen.scale, 3)).astype(np.float32)
    with torch.no_grad():
        found = pair(chosen.scale, chosen.zero_point, 3)({"x": torch.from_numpy(x)}, also=["q"])
    expected = quantize(x, chosen)
    assert found["q"].numpy().dtype == expected.dtype
    np.testing.assert_array_equal(found["q"].numpy(), expected)
    np.testing.assert_array_equal(found["y"].numpy(), dequantize(expected, chosen))


@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 0), ("uint8", 37), ("int8", 0), ("int8", -5)])
def test_gradients_are_lsq_s(dtype: str, zero: int) -> None:
    scale, lowest, highest = 0.125, int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    v = np.random.default_rng(0).normal(0, 25, (40, 3)).astype(np.float32)
    upstream = np.random.default_rng(1).normal(size=v.shape).astype(np.float32)
    module = pair(np.float32(scale), np.asarray(zero, dtype), 2)
    x = torch.from_numpy(v).requires_grad_()
    module({"x": x})["y"].backward(torch.from_numpy(upstream))
    # eq. 3 and 5 with Q_N = z - qmin and Q_P = qmax - z
    below, above = v / scale <= lowest - zero, v / scale >= highest - zero
    of_scale = np.where(below, lowest - zero, np.where(above, highest - zero, np.rint(v / scale) - v / scale))
    assert (below | above).mean() > 0.1
    np.testing.assert_allclose(x.grad.numpy(), np.where(below | above, 0, upstream))
    np.testing.assert_allclose(module.tensor("s").grad.item(), (of_scale * upstream).sum(), rtol=1e-4)


def test_a_vector_of_scales_gets_a_gradient_per_channel() -> None:
    x = torch.tensor([[0.3, 10.0], [0.6, -10.0]], requires_grad=True)
    module = pair(np.float32([1, 0.01]), np.int8([0, 0]), 2)
    module({"x": x})["y"].sum().backward()
    # round(.3) - .3 + round(.6) - .6 = .1; 127 - 128 = -1
    torch.testing.assert_close(module.tensor("s").grad, torch.tensor([0.1, -1.0]))
    assert x.grad.tolist() == [[1.0, 0.0], [1.0, 0.0]]

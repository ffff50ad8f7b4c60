"""Small pieces against independent implementations: onnx's reference evaluator, scipy, numpy."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper
from onnx.reference import ReferenceEvaluator
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from edgeft.quantize import temperature
from edgeft.quantize.affine import AffineParams, PerAxis, dequantize, quantize
from edgeft.quantize.placement import IntegerType


def reference(op: str, dtype: int, **attributes: int) -> ReferenceEvaluator:
    from_type, to_type = (onnx.TensorProto.FLOAT, dtype) if op == "QuantizeLinear" else (dtype, onnx.TensorProto.FLOAT)
    infos = [("x", from_type), ("s", onnx.TensorProto.FLOAT), ("z", dtype)]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "s", "z"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in infos],
        [helper.make_tensor_value_info("y", to_type, None)],
    )
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))


TYPES = {IntegerType.U8: onnx.TensorProto.UINT8, IntegerType.S8: onnx.TensorProto.INT8}


@settings(deadline=None)
@given(
    x=arrays(np.float32, (3, 4), elements=st.floats(-1e4, 1e4, width=32)),
    scale=arrays(np.float32, 4, elements=st.floats(2.0**-10, 100, width=32)),
    zeros=arrays(np.int64, 4, elements=st.integers(0, 100)),
    dtype=st.sampled_from(list(TYPES)),
)
def test_quantize_and_dequantize_are_onnx(
    x: np.ndarray, scale: np.ndarray, zeros: np.ndarray, dtype: IntegerType
) -> None:
    params = AffineParams(scale, zeros.astype(dtype.value), dtype, PerAxis(1))
    feeds = {"s": scale, "z": params.zero_point}
    q = quantize(x, params)
    (expected,) = reference("QuantizeLinear", TYPES[dtype], axis=1).run(None, {"x": x, **feeds})
    np.testing.assert_array_equal(q, expected)
    (real,) = reference("DequantizeLinear", TYPES[dtype], axis=1).run(None, {"x": q, **feeds})
    np.testing.assert_array_equal(dequantize(q, params), real)


@pytest.mark.parametrize("seed", range(4))
def test_the_temperature_is_scipys_minimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(300, 4)) * 3).astype(np.float32)
    labels = np.where(rng.random(300) < 0.6, logits.argmax(axis=1), rng.integers(0, 4, 300))

    def loss(log_t: float) -> float:
        return -float(log_softmax(logits / np.exp(log_t), axis=1)[np.arange(300), labels].mean())

    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-9})
    assert temperature.fit_temperature(logits, labels) == pytest.approx(np.exp(best.x), rel=1e-4)


def test_softmax_is_scipys() -> None:
    logits = np.array([[1000.0, 0.0], [-3.0, 2.0]], np.float32)
    np.testing.assert_allclose(temperature.softmax(logits), softmax(logits.astype(np.float64), axis=1), rtol=1e-12)

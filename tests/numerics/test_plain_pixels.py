"""The pass that writes integer pixels in float operators: equal bit for bit, twice is once, nothing else is touched."""

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeft.graph.execute import open_session
from edgeft.graph.passes.plain_pixels import plain_pixels_


def graph(scale: float, zero: int, *, moved: bool, quantized: bool) -> onnx.ModelProto:
    """Pixels, perhaps moved, dequantized; then perhaps a Q/DQ pair of uint8 that must stay."""
    arrays = {"s": np.float32(scale), "z": np.uint8(zero), "s2": np.float32(0.5), "z2": np.uint8(100)}
    nodes = [helper.make_node("Transpose", ["pixels"], ["image"], "image", perm=[0, 2, 1])] if moved else []
    nodes.append(helper.make_node("DequantizeLinear", ["image" if moved else "pixels", "s", "z"], ["x"], "x"))
    if quantized:
        nodes.append(helper.make_node("QuantizeLinear", ["x", "s2", "z2"], ["q"], "q"))
        nodes.append(helper.make_node("DequantizeLinear", ["q", "s2", "z2"], ["y"], "y"))
    value = helper.make_tensor_value_info
    shape = [2, 5, 7] if not moved else [2, 7, 5]
    built = helper.make_graph(
        nodes,
        "g",
        [value("pixels", TensorProto.UINT8, [2, 5, 7])],
        [value("y" if quantized else "x", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


@settings(max_examples=40, deadline=None)
@given(st.floats(2**-13, 8, width=32), st.integers(0, 255), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_values_stay_bit_for_bit(scale: float, zero: int, moved: bool, quantized: bool, seed: int) -> None:  # noqa: FBT001
    proto = graph(scale, zero, moved=moved, quantized=quantized)
    model = ir.from_proto(proto)
    report = plain_pixels_(model)
    assert report.changed == ("x",)
    changed = ir.to_proto(model)
    assert [node.op_type for node in changed.graph.node].count("DequantizeLinear") == int(quantized)
    onnx.checker.check_model(changed, full_check=True)
    x = np.random.default_rng(seed).integers(0, 256, (2, 5, 7), dtype=np.uint8)
    both = [open_session(each, 1, optimise=False).run(None, {"pixels": x})[0] for each in (proto, changed)]
    np.testing.assert_array_equal(*both)
    assert not plain_pixels_(model)

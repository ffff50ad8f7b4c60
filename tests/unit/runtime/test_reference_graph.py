"""The reference graph that baselines are held against is what its recipe says."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edgeft.pipeline.baseline import REFERENCE
from edgeft.runtime.worker import Request, measure

CHANNELS, SIDE, CONVOLUTIONS, WEIGHT = 32, 56, 3, 0.01


def build() -> onnx.ModelProto:
    """Three 3x3 convolutions, each with a ReLU, and a mean; ConstantOfShape keeps the file small."""
    kernel = np.array([CHANNELS, CHANNELS, 3, 3], np.int64)
    weight = numpy_helper.from_array(np.array([WEIGHT], np.float32))
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", CHANNELS, SIDE, SIDE])
    given = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CHANNELS, 1, 1])
    shapes, nodes, last = [], [], "x"
    for index in range(CONVOLUTIONS):
        shape, weights, sums, positive = (f"{letter}{index}" for letter in "swcr")
        shapes.append(numpy_helper.from_array(kernel, shape))
        nodes += [
            helper.make_node("ConstantOfShape", [shape], [weights], value=weight),
            helper.make_node("Conv", [last, weights], [sums], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [sums], [positive]),
        ]
        last = positive
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"]))
    graph = helper.make_graph(nodes, "reference", [taken], [given], shapes)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_shipped_graph_is_the_recipes() -> None:
    shipped = onnx.load_from_string(REFERENCE.read_bytes())
    onnx.checker.check_model(shipped, full_check=True)
    assert shipped == build()


def test_it_computes_what_three_sums_of_neighbours_do() -> None:
    """Fed with ones, every channel is the same: the sums are worked out on one plane, in float64."""
    ones = np.ones((1, CHANNELS, SIDE, SIDE), np.float32)
    session = ort.InferenceSession(REFERENCE.read_bytes(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": ones})
    plain = np.ones((SIDE, SIDE))
    for _ in range(CONVOLUTIONS):
        padded = np.pad(plain, 1)
        windows = [padded[row : row + SIDE, column : column + SIDE] for row in range(3) for column in range(3)]
        plain = CHANNELS * WEIGHT * np.sum(windows, axis=0)
    # float32 sums of 288 products, three times over: a few hundred roundings of 6e-8 each
    np.testing.assert_allclose(found, np.full((1, CHANNELS, 1, 1), plain.mean()), rtol=2e-5)


def test_it_is_timed_on_noise_as_a_baseline_does() -> None:
    request = Request(str(REFERENCE), 1, spinning=False, samples=5, warmup=0, max_seconds=5.0)
    assert len(measure(request).samples_ms) == 5

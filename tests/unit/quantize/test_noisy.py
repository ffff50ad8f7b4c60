"""What rounding one tensor costs: against the same done by hand, and which segments are left in float for it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgeft.graph.execute import open_session
from edgeft.graph.taps import with_outputs
from edgeft.quantize.affine import AffineParams, params_for_range
from edgeft.quantize.calibration import Execution
from edgeft.quantize.insert import insert_pairs_
from edgeft.quantize.noisy import Noise, multiplications, rounding_noise
from edgeft.quantize.placement import IntegerType, TensorType
from edgeft.quantize.plan import make_plan
from edgeft.quantize.search import segment_chain
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.placement import PLACEMENT

EXECUTION = Execution(1, 4)
U8 = TensorType(IntegerType.U8, symmetric=False)


def measure(net: onnx.ModelProto, params: dict[str, AffineParams], x: np.ndarray) -> Noise:
    return rounding_noise(net, segment_chain(net, PLACEMENT), params, "logits", {"pixels": x}, EXECUTION)


def test_the_noise_is_that_of_a_graph_which_rounds_this_tensor_alone(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    """Joined by hand: a Q and a DQ behind stem.clip, run as they are written."""
    x = pixels(10, seed=5)
    params = params_for_range(0.0, 6.0, U8)
    found = measure(net, {"stem.clip": params}, x)
    rounded = onnx.ModelProto()
    rounded.CopyFrom(net)
    for node in rounded.graph.node:
        for index, name in enumerate(node.input):
            if name == "stem.clip":
                node.input[index] = "dq"
    at = next(index for index, node in enumerate(rounded.graph.node) if node.name == "stem.clip")
    for offset, (kind, source, made) in enumerate((("Quantize", "stem.clip", "q"), ("Dequantize", "q", "dq")), start=1):
        rounded.graph.node.insert(at + offset, onnx.helper.make_node(f"{kind}Linear", [source, "s", "z"], [made], made))
    for name, array in (("s", params.scale), ("z", params.zero_point)):
        rounded.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    runs = [open_session(with_outputs(each, ["logits"]), 1, optimise=False) for each in (net, rounded)]
    expected, by_hand = (run.run(["logits"], {"pixels": x})[0] for run in runs)
    wanted = np.square(by_hand.astype(np.float64) - expected).mean()
    assert found.behind[0] == pytest.approx(wanted, rel=1e-3)
    np.testing.assert_array_equal(found.behind[1:], 0)
    np.testing.assert_array_equal(found.inside, 0)


def test_what_is_inside_a_segment_counts_as_one(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    """Two tensors inside the residual block rounded: what a graph with Q and DQ behind both of them loses."""
    x = pixels(10, seed=5)
    params = {"dw.relu": params_for_range(0.0, 3.0, U8), "pw": params_for_range(-2.0, 2.0, U8)}
    found = measure(net, params, x)
    assert "dw.relu" in segment_chain(net, PLACEMENT)[1].tensors
    model = ir.from_proto(net)
    insert_pairs_(model, params)
    runs = [
        open_session(with_outputs(each, ["logits"]), 1, optimise=False).run(["logits"], {"pixels": x})[0]
        for each in (net, ir.to_proto(model))
    ]
    wanted = np.square(runs[1].astype(np.float64) - runs[0]).mean()
    assert found.inside[1] == pytest.approx(wanted, rel=1e-3)
    np.testing.assert_array_equal(found.behind, 0)
    reasons = found.spare(1.0, np.ones(len(found.chain)))
    assert {"dw", "pw", "sum"} <= set(reasons)
    assert "stem" not in reasons
    assert reasons["dw"].startswith("measured: what is inside dw .. ")


def test_multiplications_are_counted_where_they_are_of_integers(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    model, chain = ir.from_proto(onnx.shape_inference.infer_shapes(net)), segment_chain(net, PLACEMENT)
    stem, middle, head = 8 * 27 * 144, 8 * 9 * 144 + 64 * 144, 8 * 3
    work = multiplications(make_plan(model, PLACEMENT), chain)
    np.testing.assert_array_equal(work, [stem, middle, head])
    floats = multiplications(make_plan(model, PLACEMENT, {"stem": "a test"}), chain)
    np.testing.assert_array_equal(floats, [0, middle, head])
    assert measure(net, {}, pixels(2)).spare(1.0, work) == {}  # nothing is rounded


def test_a_network_whose_integers_are_few_is_quantized(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    """What never takes integers leaves no more room for others in float: half of nothing would be all of the rest."""
    method = static_method("gptq", 16)
    method = replace(method, spare=0.5, keep_float=dict.fromkeys(("stem", "dw", "pw"), "a test"))
    assert len(quantize_static(net, PLACEMENT, pixels(16), method).skips) < len(net.graph.node)


def chain_of(noise: list[float], net: onnx.ModelProto, size: int = 0) -> Noise:
    segments = segment_chain(net, PLACEMENT)[:1] * len(noise)
    chain = tuple(replace(s, nodes=(f"n{i}",), tensors=(f"t{i}",), size=size) for i, s in enumerate(segments))
    return Noise(chain, np.array(noise), np.zeros(len(noise)))


def test_the_noisiest_tensors_are_spared_within_the_share_of_work(net: onnx.ModelProto) -> None:
    found, work = chain_of([10, 5, 0.1, 80, 0, 0], net), np.array([1.0, 2, 3, 40, 40, 14])
    assert set(found.spare(1.0, work)) == {"n0", "n1", "n2", "n3", "n4"}
    assert set(found.spare(0.05, work)) == {"n0", "n1"}  # n3 and n4 would be 80 % of the work
    assert set(found.spare(0.07, work)) == {"n0", "n1", "n2"}
    assert found.spare(0.02, work) == {}
    reasons = found.spare(0.07, work)
    assert reasons["n1"] == "measured: t0 in 8 bits causes 11% of the error by rounded tensors"
    assert reasons["n2"].startswith("measured: t1 in 8 bits causes 5%")


def test_conversions_at_the_edges_count(net: onnx.ModelProto) -> None:
    noise, work = [0.0, 10, 0, 0, 0, 0], np.full(6, 1000.0)
    assert set(chain_of(noise, net).spare(0.34, work)) == {"n1", "n2"}
    assert chain_of(noise, net, size=2).spare(0.34, work) == {}  # two edges of 2 elements, worth 80 multiplications
    assert set(chain_of(noise, net, size=2).spare(0.36, work)) == {"n1", "n2"}
    assert set(chain_of([10.0, 0, 0, 0, 0, 0], net, size=2).spare(0.35, work)) == {"n0", "n1"}  # one edge


def test_what_is_spared_stays_float_and_says_why(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    method = replace(static_method("gptq", 16), spare=9.0)
    made = quantize_static(net, PLACEMENT, pixels(32), method, execution=EXECUTION)
    said = {skip.layer: skip.reason for skip in made.skips}
    assert "causes" in said["stem"]
    assert "causes" in said["dw"]
    kept = {name for node in made.model.graph.node if node.name in {"stem", "dw", "pw"} for name in node.input}
    assert {"stem.w", "dw.w", "pw.w"} <= kept


def test_nothing_is_spared_where_it_would_cost_too_much(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    made = quantize_static(net, PLACEMENT, pixels(32), static_method("gptq", 16), execution=EXECUTION)
    assert not [skip for skip in made.skips if "causes" in skip.reason]

"""Precision search: the cheapest path, what a simulated device makes of it, and what it leaves in float for real."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeft.graph.segments import Segment
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import Judged
from edgeft.quantize.dynamic import DynamicMethod
from edgeft.quantize.ladder import climb
from edgeft.quantize.on_target import this_device
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.rungs import Ladder
from edgeft.quantize.search import Device, _times, cheapest, search
from edgeft.quantize.static import static_method
from edgeft_exporters.onnx import OnnxExporter
from edgeft_exporters.onnx.placement import PLACEMENT

milliseconds = st.floats(0, 10, allow_nan=False, width=32)


@given(st.lists(st.tuples(milliseconds, milliseconds, milliseconds), min_size=1, max_size=7))
def test_the_path_found_is_the_cheapest_of_all(rows: list[tuple[float, float, float]]) -> None:
    times, change = np.array([row[:2] for row in rows]), np.array([row[2] for row in rows])

    def cost(states: Sequence[bool]) -> float:
        spent = sum(times[index, int(state)] for index, state in enumerate(states))
        return spent + sum(change[index] for index in range(len(states) - 1) if states[index] != states[index + 1])

    best = min(map(cost, itertools.product([False, True], repeat=len(rows))))
    assert cost(cheapest(times, change)) == pytest.approx(best)


def kinds(model: onnx.ModelProto) -> int:
    """Return how many tensors `model` quantizes."""
    return sum(node.op_type == "QuantizeLinear" for node in model.graph.node)


def simulated(
    slow_in_int8: Mapping[str, float], race: Callable[[Sequence[onnx.ModelProto]], Sequence[float]]
) -> Device:
    """A device on which every tensor takes 1 ms in either precision, but these take more in int8."""

    def profile(model: onnx.ModelProto) -> dict[str, float]:
        quantized = kinds(model) > 0
        tensors = [name for node in model.graph.node for name in node.output if "::" not in name]
        return {name: 1 + (slow_in_int8.get(name, 0.0) if quantized else 0.0) for name in tensors}

    return Device(profile, race)


@pytest.fixture
def int8(pixels: Callable[..., np.ndarray]) -> Ladder:
    return Ladder(PLACEMENT, static_method("minmax", 16), ArrayRows("pixels", pixels(32)))


def judge(model: onnx.ModelProto) -> Judged:
    return Judged(model, None, {"mean_abs_logit_error": 0.1})


def made(net: onnx.ModelProto, int8: Ladder, device: Device) -> tuple[onnx.ModelProto, list[str], tuple[str, ...]]:
    (rung,) = climb(net, Ladder(PLACEMENT, int8.method, int8.calibration, device=device), judge, execution=Execution())
    return rung.judged.model, [skip.layer for skip in rung.skips if "measured" in skip.reason], rung.notes


def fewest_first(models: Sequence[onnx.ModelProto]) -> list[float]:
    """A race that the graph with the fewest quantized tensors wins."""
    return [10.0 + kinds(model) for model in models]


def test_a_segment_that_is_slow_in_int8_stays_float(net: onnx.ModelProto, int8: Ladder) -> None:
    # from `stem.clip` on two tensors are alive until `sum`: one segment
    model, floats, notes = made(net, int8, simulated({"pw": 5.0}, fewest_first))
    assert floats == ["dw", "dw.relu", "pw", "sum", "max", "pool", "flat"]
    assert any("search: 1 of" in note and "stay in float" in note for note in notes)
    by_name = {node.name: node for node in model.graph.node}
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    assert makers[by_name["stem"].input[1]] == "DequantizeLinear"
    assert "pw.w" in by_name["pw"].input


def test_names_that_hold_colons_belong_to_their_own_segments() -> None:
    chain = tuple(Segment((name,), (name,), 1) for name in ("stem", "onnx::Relu_1", "onnx::Relu_1::b"))
    profile = {"stem": 1.0, "onnx::Relu_1::q": 2.0, "onnx::Relu_1": 4.0, "onnx::Relu_1::b::dq": 8.0, "pixels::q": 16.0}
    assert _times(chain, profile).tolist() == [17.0, 6.0, 8.0]  # what no segment makes counts for the first


def test_what_loses_the_race_changes_nothing(net: onnx.ModelProto, int8: Ladder) -> None:
    model, floats, notes = made(net, int8, simulated({"pw": 5.0}, lambda models: [1.0] * len(models)))
    assert floats == []
    assert any("int8 in all of" in note for note in notes)
    assert kinds(model) > 0


def test_nothing_is_raced_where_int8_is_faster_everywhere(net: onnx.ModelProto, int8: Ladder) -> None:
    def race(models: Sequence[onnx.ModelProto]) -> list[float]:
        pytest.fail(f"raced {len(models)} graphs")

    device = simulated({name: -0.5 for node in net.graph.node for name in node.output}, race)
    found = search(net, made(net, int8, simulated({}, fewest_first))[0], PLACEMENT, lambda _: net, device)
    assert (dict(found.keep_float), found.floats, found.ratio) == ({}, 0, 1.0)


def test_this_machine_answers(net: onnx.ModelProto, pixels: Callable[..., np.ndarray], int8: Ladder) -> None:
    device = this_device(OnnxExporter(), ArrayRows("pixels", pixels(4)), 1)
    profile = device.profile(net)
    known = {name for node in net.graph.node for name in node.output}
    assert set(profile) <= known
    assert {"stem.clip", "logits"} & set(profile)
    assert sum(profile.values()) > 0
    quantized = made(net, int8, device)[0]
    assert {tensor.partition("::")[0] for tensor in device.profile(quantized)} <= known | {"image"}
    first, second = device.race([net, quantized])
    assert min(first, second) > 0


def test_a_dynamic_method_has_no_segments_to_search(net: onnx.ModelProto, int8: Ladder) -> None:
    asked = Ladder(PLACEMENT, DynamicMethod(8), int8.calibration, device=simulated({}, fewest_first))
    with pytest.raises(QuantizationError, match="this one is dynamic"):
        climb(net, asked, judge, execution=Execution())


def test_what_is_raced_spares_the_same_tensors_as_what_is_made(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    """Else a mix wins the race, and another graph is made of it."""
    raced: list[onnx.ModelProto] = []

    def race(models: Sequence[onnx.ModelProto]) -> list[float]:
        raced.extend(models)
        return [2.0, *[1.0] * (len(models) - 1)]

    ladder = Ladder(
        PLACEMENT,
        static_method("gptq", 16, 9.0),  # more than any graph has: whatever suffers is spared
        ArrayRows("pixels", pixels(32)),
        device=simulated({"stem": 5.0}, race),
    )
    (rung,) = climb(net, ladder, lambda model: Judged(model, None, {}), execution=Execution())
    assert len(raced) == 2
    spared = {skip.layer for skip in rung.skips if "causes" in skip.reason}
    assert "dw" in spared
    for model in (*raced, rung.judged.model):
        weights = {node.name: node.input[1] for node in model.graph.node if node.op_type in {"Conv", "Gemm"}}
        assert weights["stem"] == "stem.w"
        assert weights["dw"] == "dw.w"
        assert weights["head"] != "head.w"

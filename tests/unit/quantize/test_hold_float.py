"""What is left in float runs in float: on onnxruntime, which rounds lone float weights unless it is kept from it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgeft.graph.execute import open_session
from edgeft.graph.taps import with_outputs
from edgeft.quantize.calibration import Execution
from edgeft.quantize.hold_float import hold_floats_
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.lint import lint
from edgeft_exporters.onnx.placement import PLACEMENT

LAYERS = ["stem", "dw"]


def made(net: onnx.ModelProto, pixels: np.ndarray, layer: str, *, held: bool = True) -> onnx.ModelProto:
    method = replace(static_method("minmax", 16), keep_float={layer: "a test"})
    placement = PLACEMENT if held else replace(PLACEMENT, rounds_floats=())
    return quantize_static(net, placement, pixels, method, execution=Execution()).model


@pytest.mark.parametrize("layer", LAYERS)
def test_a_lone_float_layer_runs_in_float(
    net: onnx.ModelProto,
    pixels: Callable[..., np.ndarray],
    operators_run: Callable[[onnx.ModelProto], list[str]],
    layer: str,
) -> None:
    x = pixels(32)
    counts = [operators_run(made(net, x, layer, held=held)).count("QLinearConv") for held in (True, False)]
    assert counts == [2, 3]  # unheld, onnxruntime makes integers of it, too


@pytest.mark.parametrize("layer", LAYERS)
def test_it_computes_what_is_written(net: onnx.ModelProto, pixels: Callable[..., np.ndarray], layer: str) -> None:
    """Optimised or not, up to single roundings of activations: the weights are those of the file."""
    x = pixels(32, seed=3)
    differences = []
    for held in (True, False):
        graph = with_outputs(made(net, pixels(32), layer, held=held), ["logits"])
        runs = [open_session(graph, 1, optimise=optimise).run(["logits"], {"pixels": x})[0] for optimise in (1, 0)]
        differences.append(float(np.abs(runs[0] - runs[1]).mean()))
    assert differences[0] < 0.2 * differences[1]


def test_a_float_pool_stays_before_its_q(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray], operators_run: Callable[[onnx.ModelProto], list[str]]
) -> None:
    """Onnxruntime would exchange the two, and take integers through a kernel in the wrong layout."""
    x, nodes = pixels(32), {node.name: node for node in net.graph.node}
    net.graph.node.remove(nodes["max"])  # and put it behind the stem, where networks have it
    net.graph.node.insert(4, onnx.helper.make_node("MaxPool", ["stem.clip"], ["max"], "max", kernel_shape=[2, 2]))
    for name, index, tensor in (("dw", 0, "max"), ("sum", 1, "max"), ("pool", 0, "sum")):
        next(node for node in net.graph.node if node.name == name).input[index] = tensor
    method = replace(static_method("minmax", 16), keep_float=dict.fromkeys(("stem", "stem.clip", "max"), "a test"))
    held, unheld = (
        operators_run(quantize_static(net, placement, x, method, execution=Execution()).model)
        for placement in (PLACEMENT, replace(PLACEMENT, swapped_with_q=(), carries_q=()))
    )
    assert held.index("MaxPool") < held.index("QuantizeLinear")
    assert held.count("QLinearConv") == 2
    assert "NhwcMaxPool" in unheld
    assert unheld.count("QLinearConv") == 3  # and with the Q before it the stem, too, is rounded


def test_the_linter_still_finds_its_reason(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    onnx.save(made(net, pixels(32), "dw"), tmp_path / "held.onnx")
    findings = {finding.node: finding for finding in lint(tmp_path / "held.onnx")}
    assert "dw" in findings
    assert not [finding for finding in findings.values() if "although its inputs" in finding.reason]


def test_nothing_is_added_twice_or_where_everything_is_integer(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    x = pixels(32)
    whole = ir.from_proto(quantize_static(net, PLACEMENT, x, static_method("minmax", 16), execution=Execution()).model)
    assert hold_floats_(whole, PLACEMENT) == ()
    assert hold_floats_(ir.from_proto(made(net, x, "dw")), PLACEMENT) == ()
    assert hold_floats_(ir.from_proto(made(net, x, "dw", held=False)), PLACEMENT) == ("dw",)


MOVES = [
    *(("MaxPool", {"kernel_shape": [1, 1]}), ("Transpose", {"perm": [0, 1, 3, 2]}), ("Identity", {})),
    *(("Reshape", [0, 0, -1, 12]), ("Unsqueeze", [4])),
]


@pytest.mark.parametrize("side", ["ahead", "behind"])
@pytest.mark.parametrize(("op_type", "how"), MOVES, ids=[op_type for op_type, _ in MOVES])
def test_a_lone_float_layer_is_found_over_what_q_is_carried_over(
    net: onnx.ModelProto,
    pixels: Callable[..., np.ndarray],
    operators_run: Callable[[onnx.ModelProto], list[str]],
    op_type: str,
    how: dict[str, list[int]] | list[int],
    side: str,
) -> None:
    """Conv, Relu, move, Conv (in float), Relu, move: the runtime brings Q and DQ to the float Conv over the move."""
    x, nodes = pixels(32), list(net.graph.node)
    source, reader = ("stem.clip", "dw") if side == "ahead" else ("dw.relu", "pw")
    made_of = [source]
    if isinstance(how, list):
        net.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(how, np.int64), "how"))
    kinds = [op_type, *(["Squeeze"] if op_type == "Unsqueeze" else [])]
    place = next(index for index, node in enumerate(nodes) if node.name == reader)
    for number, kind in enumerate(kinds):
        attributes = how if isinstance(how, dict) else {}
        inputs = [made_of[-1], *(["how"] if isinstance(how, list) else [])]
        made_of.append(f"moved{number}")
        net.graph.node.insert(
            place + number, onnx.helper.make_node(kind, inputs, made_of[-1:], f"m{number}", **attributes)
        )
    next(node for node in net.graph.node if node.name == reader).input[0] = made_of[-1]
    method = replace(static_method("minmax", 16), keep_float=dict.fromkeys(("dw", "dw.relu"), "a test"))
    counts = [
        operators_run(quantize_static(net, placement, x, method, execution=Execution()).model).count("QLinearConv")
        for placement in (PLACEMENT, replace(PLACEMENT, swapped_with_q=(), carries_q=()))
    ]
    assert counts == [2, 3]  # stem and pw; dw too


def test_the_linter_names_what_is_rounded_all_the_same(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    onnx.save(made(net, pixels(32), "dw", held=False), tmp_path / "unheld.onnx")
    found = [
        finding for finding in lint(tmp_path / "unheld.onnx") if "rounds its float weights by itself" in finding.reason
    ]
    assert [(finding.node, finding.expected) for finding in found] == [("dw", False)]

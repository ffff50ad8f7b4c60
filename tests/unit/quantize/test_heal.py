"""Activations swapped and healed: the loss falls, the graph comes near what it was, and int8 is made of that."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import Bar, logits_of
from edgeft.quantize.compress import Evaluation, compress
from edgeft.quantize.dynamic import DynamicMethod
from edgeft.quantize.follow import Lessons
from edgeft.quantize.heal import heal
from edgeft.quantize.ladder import climb
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.rungs import Ladder
from edgeft.quantize.static import static_method
from edgeft_exporters.onnx.placement import PLACEMENT

Pixels = Callable[..., np.ndarray]


@pytest.fixture
def curved(net: onnx.ModelProto) -> onnx.ModelProto:
    """The net with HardSwish for Clip and Relu."""
    for node in net.graph.node:
        if node.name in {"stem.clip", "dw.relu"}:
            node.op_type = "HardSwish"
            del node.input[1:]
    return net


def lessons(x: np.ndarray, steps: int) -> Lessons:
    return Lessons(x, np.random.default_rng(0), steps, 16, ("logits", "sum"))


def error(graph: onnx.ModelProto, other: onnx.ModelProto, x: np.ndarray) -> float:
    found, wanted = (logits_of(each, ArrayRows("pixels", x), Execution()) for each in (graph, other))
    return float(np.abs(found - wanted).mean())


def test_training_heals_what_the_swap_broke(curved: onnx.ModelProto, pixels: Pixels) -> None:
    before = curved.SerializeToString()
    broken = heal(curved, lessons(pixels(64), 1), 0.0)
    healed = heal(curved, lessons(pixels(64), 60), 0.02)
    assert healed.swapped == ("stem.clip", "dw.relu")
    assert {node.op_type for node in healed.model.graph.node}.isdisjoint({"HardSwish", "Sigmoid"})
    assert healed.losses[-1] < 0.3 * healed.losses[0]
    x = pixels(64, seed=3)
    assert error(healed.model, curved, x) < 0.5 * error(broken.model, curved, x)
    assert curved.SerializeToString() == before


def test_a_graph_without_such_activations_is_refused(net: onnx.ModelProto, pixels: Pixels) -> None:
    with pytest.raises(QuantizationError, match="no HardSwish or SiLU") as caught:
        heal(net, lessons(pixels(8), 1), 0.02)
    assert "compress.swap_activations" in str(caught.value.hint)


def test_int8_is_made_of_the_healed_graph_and_the_report_says_so(curved: onnx.ModelProto, pixels: Pixels) -> None:
    x = pixels(64)
    rows = ArrayRows("pixels", x)
    labels = logits_of(curved, rows, Execution()).argmax(axis=1).astype(np.int64)
    ladder = Ladder(PLACEMENT, static_method("gptq", 16), rows, x, swap=True)
    made = compress(curved, Evaluation(rows, labels, Bar("accuracy", 60.0, 0)), ladder, execution=Execution())
    (_, int8) = made.candidates
    assert int8.method.startswith("relu+")
    assert [rung["rung"] for rung in int8.ladder] == ["swapped_closed_form"]
    assert not [skip for skip in int8.skips if "HardSwish" in skip.reason]
    assert any("2 activations were swapped for Relu" in note for note in made.notes)


def test_where_no_swapped_graph_holds_the_margin_the_graph_as_it_was_is_tried(
    curved: onnx.ModelProto, pixels: Pixels
) -> None:
    from edgeft.quantize.candidates import Judged

    ladder = Ladder(
        PLACEMENT, static_method("gptq", 16), ArrayRows("pixels", pixels(32)), pixels(32), "until it holds", swap=True
    )

    def judge(model: onnx.ModelProto) -> Judged:
        swapped = any(node.op_type == "Relu" for node in model.graph.node)
        return Judged(model, None, {"agreement": 0.5, "mean_abs_logit_error": 1.0, "holds_margin": not swapped})

    rungs = climb(curved, ladder, judge, execution=Execution())
    assert rungs[0].name == "swapped_closed_form"
    assert rungs[-1].name == "closed_form"
    assert "no such graph holds the margin" in rungs[-1].notes[0]
    assert rungs[0].seconds > rungs[-1].seconds  # healing counts


def test_dynamic_graphs_are_refused(curved: onnx.ModelProto, pixels: Pixels) -> None:
    ladder = Ladder(PLACEMENT, DynamicMethod(8), ArrayRows("pixels", pixels(8)), pixels(8), swap=True)
    with pytest.raises(QuantizationError, match="swapping activations is for a statically quantized graph"):
        climb(curved, ladder, lambda model: pytest.fail(str(model)), execution=Execution())

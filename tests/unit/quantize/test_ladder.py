"""The ladder climbs only where it must, ships the rung nearest to float, and says what it could not try."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

from edgeft import catalog
from edgeft.graph.execute import open_session
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import Bar, Judged, logits_of, output_error
from edgeft.quantize.compress import Evaluation, compress
from edgeft.quantize.ladder import best, climb, climb_rule
from edgeft.quantize.one_input import OneInput
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.rungs import CLOSED_FORM, PARTIAL_FLOAT, QAT, Ladder, Rung
from edgeft.quantize.static import static_method
from edgeft_exporters.onnx.placement import PLACEMENT


@pytest.fixture
def int8(pixels: Callable[..., np.ndarray]) -> Ladder:
    return Ladder(
        PLACEMENT, static_method("minmax", 16), ArrayRows("pixels", pixels(32)), pixels(64), "until it holds", seed=3
    )


@pytest.fixture
def judge(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> Callable[[float], Callable]:
    """Return a judge that lets pass what errs by at most a share of the first graph it sees."""
    unseen = pixels(96, seed=11)
    wanted = logits_of(net, ArrayRows("pixels", unseen), Execution())

    def with_bar(share: float) -> Callable[[onnx.ModelProto], Judged]:
        first: list[float] = []

        def judged(model: onnx.ModelProto) -> Judged:
            worth = output_error(logits_of(model, ArrayRows("pixels", unseen), Execution()), wanted)
            error = float(str(worth["mean_abs_logit_error"]))
            first.append(error)
            return Judged(model, None, {**worth, "holds_margin": error <= share * first[0]})

        return judged

    return with_bar


def test_a_rung_that_holds_ends_the_climb(net: onnx.ModelProto, int8: Ladder, judge: Callable) -> None:
    (only,) = climb(net, int8, judge(1.0), execution=Execution())
    assert only.name == CLOSED_FORM
    assert only.holds


def test_training_follows_where_the_margin_is_not_held(net: onnx.ModelProto, int8: Ladder, judge: Callable) -> None:
    rungs = climb(net, int8, judge(0.0), execution=Execution())
    assert [rung.name for rung in rungs] == [CLOSED_FORM, QAT]
    assert "partial_float was not possible: no tensor can be spared within 35%" in rungs[0].notes[-1]
    start, last = rungs
    assert last.unsafe_pairs == 0
    assert last.label.startswith(start.label)
    errors = [float(str(rung.judged.validation["mean_abs_logit_error"])) for rung in rungs]
    assert errors[1] < errors[0]
    assert best(rungs) is last


def test_more_segments_go_to_float_first(
    net: onnx.ModelProto, int8: Ladder, judge: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeft.quantize.rungs._SPARE_MORE", 9.0)  # the net has three segments
    first, second = climb(net, int8, judge(0.98), execution=Execution())
    assert (first.name, second.name) == (CLOSED_FORM, PARTIAL_FLOAT)
    assert not first.holds
    assert second.holds
    added = {skip.layer: skip.reason for skip in second.skips if skip not in first.skips}
    assert added
    assert all("causes" in reason for reason in added.values())


def test_qat_always_follows_where_it_is_asked_for(net: onnx.ModelProto, int8: Ladder, judge: Callable) -> None:
    asked = replace(int8, climb=climb_rule("qat"))
    assert [rung.name for rung in climb(net, asked, judge(1.0), execution=Execution())] == [CLOSED_FORM, QAT]


@pytest.mark.parametrize("method", ["mse", "gptq"])
def test_other_methods_are_one_rung(net: onnx.ModelProto, int8: Ladder, judge: Callable, method: str) -> None:
    alone = replace(int8, climb=climb_rule(method))
    assert [rung.name for rung in climb(net, alone, judge(0.0), execution=Execution())] == [CLOSED_FORM]


def test_without_torch_the_climb_says_so_and_qat_refuses(
    net: onnx.ModelProto, int8: Ladder, judge: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    (last,) = climb(net, int8, judge(0.0), execution=Execution())
    assert any("qat was not possible: torch is not installed" in note for note in last.notes)
    with pytest.raises(QuantizationError, match="torch is not installed"):
        climb(net, replace(int8, climb=climb_rule("qat")), judge(0.0), execution=Execution())


def test_the_nearest_rung_ships_and_first_of_all_one_that_holds() -> None:
    def rung(name: str, error: float, *, holds: bool) -> Rung:
        judged = Judged(onnx.ModelProto(), None, {"mean_abs_logit_error": error, "holds_margin": holds})
        return Rung(name, name, judged, 0.0, (), 0)

    near, far, fair = rung("near", 0.1, holds=False), rung("far", 0.3, holds=False), rung("fair", 0.2, holds=True)
    assert best((far, near)) is near
    assert best((far, near, fair)) is fair
    taught = replace(rung("taught", 0.4, holds=True), taught=True)
    assert best((near, fair, taught)) is taught
    assert best((fair, replace(taught, judged=far.judged))) is fair


def test_training_follows_a_teachers_answers_where_they_are_given(
    net: onnx.ModelProto, int8: Ladder, judge: Callable, pixels: Callable[..., np.ndarray]
) -> None:
    rows, unseen = pixels(64), pixels(96, seed=11)

    def away(x: np.ndarray) -> np.ndarray:
        own = logits_of(net, ArrayRows("pixels", x), Execution())
        return own + own.std() * np.array([0.3, 0.0, -0.3], np.float32)

    answers = away(rows) + np.arange(len(rows), dtype=np.float32)[:, None]  # a row's mean says nothing
    rungs = climb(
        net, replace(int8, training=rows, answers=answers, climb=climb_rule("qat")), judge(1.0), execution=Execution()
    )
    assert [rung.taught for rung in rungs] == [False, True]
    assert rungs[1].label.endswith("_teacher")
    found = [logits_of(rung.judged.model, ArrayRows("pixels", unseen), Execution()) for rung in rungs]
    start, trained = (np.abs(each - away(unseen)).mean() for each in found)
    assert trained < 0.8 * start


def test_calibration_inputs_are_read_few_at_a_time(
    net: onnx.ModelProto, int8: Ladder, judge: Callable, pixels: Callable[..., np.ndarray]
) -> None:
    asked: list[int] = []

    class Counted(ArrayRows):
        def __getitem__(self, rows: slice) -> dict[str, np.ndarray]:
            found = super().__getitem__(rows)
            asked.append(len(found["pixels"]))
            return found

    method = static_method("gptq", 16)
    whole = replace(int8, method=method, climb="never")
    rows = Counted("pixels", pixels(200))
    (found,) = climb(net, replace(whole, calibration=rows), judge(1.0), execution=Execution())
    assert max(asked) <= 16
    assert sum(asked) >= 200
    (expected,) = climb(
        net, replace(whole, calibration=ArrayRows("pixels", pixels(200))), judge(1.0), execution=Execution()
    )
    assert found.judged.model == expected.judged.model
    some = OneInput(rows)[np.array([5, 3, 5])]
    np.testing.assert_array_equal(some, pixels(200)[[5, 3, 5]])


def test_training_without_images_is_refused_before_anything_is_done(
    net: onnx.ModelProto, int8: Ladder, judge: Callable
) -> None:
    with pytest.raises(QuantizationError, match="int8 is trained on images"):
        climb(net, replace(int8, training=None, climb="always"), judge(1.0), execution=Execution())


def test_answers_for_a_target_that_is_elsewhere_are_those_of_the_graph_as_written(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = set()

    def noted(model: onnx.ModelProto, threads: int, *, optimise: bool = True) -> object:
        asked.add(optimise)
        return open_session(model, threads, optimise=optimise)

    monkeypatch.setattr("edgeft.quantize.rows.open_session", noted)
    rows = ArrayRows("pixels", pixels(16))
    evaluation = Evaluation(rows, None, Bar("accuracy", 1.0, 0))
    for target, expected in (("onnx", {True}), ("tensorrt", {False})):
        placement = replace(catalog.exporter(target).placement, fewest_channels=0, fewest_rows=0)
        asked.clear()
        compress(
            net, evaluation, Ladder(placement, static_method("mse", 8), rows, None, "never"), execution=Execution()
        )
        assert asked == expected

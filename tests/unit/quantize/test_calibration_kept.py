"""Statistics on disk: merged, resumed with equal bits, reused by other methods, made again where they are damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgeft.core.events import Event, Message, Progress
from edgeft.core.stage import Context
from edgeft.quantize import calibration
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.calibration import Execution, observe
from edgeft.quantize.calibration_file import load_statistics, save_statistics
from edgeft.quantize.collected import CalibrationRequest, CalibrationStatistics
from edgeft.quantize.config import CompressConfig
from edgeft.quantize.observers import ChannelImportance, Histogram
from edgeft.quantize.stage import run
from edgeft.quantize.static import quantize_static, static_method
from edgeft_exporters.onnx.placement import PLACEMENT

REQUEST = CalibrationRequest(
    {"stem.clip": ChannelImportance(1, np.arange(1, 9)), "sum": None}, {"pw": 1, "logits": -1}, mean_images=7
)
EXECUTION = Execution(1, 2)


class Stopped(Exception):  # noqa: N818 - an interruption, not an error
    pass


def model_of(net: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(net))


def collect(net: onnx.ModelProto, x: np.ndarray, memo: Path | None = None, **options: Any) -> CalibrationStatistics:  # noqa: ANN401 - as observe
    return observe(model_of(net), x, options.pop("request", REQUEST), execution=EXECUTION, memo=memo, **options)


def same(left: CalibrationStatistics, right: CalibrationStatistics) -> None:
    assert (left.images, left.mean_images) == (right.images, right.mean_images)
    assert list(left.histograms) == list(right.histograms)
    for one, other in zip(left.histograms.values(), right.histograms.values(), strict=True):
        assert (one.name, one.exponent, one.zeros) == (other.name, other.exponent, other.zeros)
        assert (one.low, one.high) == (other.low, other.high)
        np.testing.assert_array_equal(one.counts, other.counts)
        np.testing.assert_array_equal(one.weighted, other.weighted)
    assert list(left.mean_sums) == list(right.mean_sums)
    for tensor, total in left.mean_sums.items():
        np.testing.assert_array_equal(total, right.mean_sums[tensor])


def calibrated(events: list[Event]) -> list[int]:
    return [event.done for event in events if isinstance(event, Progress) and event.task == "calibrate"]


def test_statistics_of_parts_merge_into_those_of_the_whole(
    net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    x = pixels(10)
    whole, first = collect(net, x), collect(net, x[:6])
    rest = CalibrationRequest(REQUEST.observed, REQUEST.means, mean_images=1)
    first.merge_(collect(net, x[6:], request=rest))
    assert (first.images, first.mean_images) == (10, 7)
    for tensor, total in whole.means.items():
        np.testing.assert_allclose(first.means[tensor], total, rtol=1e-12)  # float64 sums in another order
    first.mean_sums = whole.mean_sums
    same(first, whole)


def test_merging_with_nothing_seen_changes_nothing(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    statistics = collect(net, pixels(4))
    empty = CalibrationStatistics({tensor: Histogram(tensor) for tensor in REQUEST.observed})
    statistics.merge_(empty)
    same(statistics, collect(net, pixels(4)))
    empty.merge_(statistics)
    same(empty, statistics)


def test_statistics_of_other_tensors_are_not_merged(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    statistics = collect(net, pixels(2))
    with pytest.raises(QuantizationError, match="different tensors"):
        statistics.merge_(collect(net, pixels(2), request=CalibrationRequest({"sum": None})))
    with pytest.raises(QuantizationError, match="different tensors"):
        statistics.merge_(collect(net, pixels(2), request=CalibrationRequest(REQUEST.observed, {"pw": 1}, 2)))


def test_what_is_saved_is_what_is_loaded(
    tmp_path: Path, net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    statistics = collect(net, pixels(5))
    statistics.histograms["never"] = Histogram("never")
    save_statistics(tmp_path / "kept", statistics)
    loaded = load_statistics(tmp_path / "kept")
    assert loaded is not None
    same(loaded, statistics)
    empty = CalibrationStatistics({})
    save_statistics(tmp_path / "empty", empty)
    assert load_statistics(tmp_path / "empty") == empty
    assert load_statistics(tmp_path / "none") is None


@pytest.mark.parametrize("stop_after", [2, 6, 8, 10])
def test_an_interrupted_pass_goes_on_with_equal_bits(
    tmp_path: Path,
    net: onnx.ModelProto,
    pixels: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int,
) -> None:
    monkeypatch.setattr(calibration, "_SAVE_SECONDS", -1.0)  # after every batch
    x = pixels(11)

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.done == stop_after:
            raise Stopped

    with pytest.raises(Stopped):
        collect(net, x, tmp_path, emit=stop)
    events: list[Event] = []
    resumed = collect(net, x, tmp_path, emit=events.append)
    assert calibrated(events) == [done for done in (2, 4, 6, 8, 10, 11) if done > stop_after]
    assert events[0] == Message(f"calibration: goes on after {stop_after} images")
    same(resumed, collect(net, x))


def test_the_same_request_runs_once(tmp_path: Path, net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    first = collect(net, pixels(4), tmp_path)
    events: list[Event] = []
    same(collect(net, pixels(4), tmp_path, emit=events.append), first)
    assert events == [Message("calibration: statistics are reused")]
    assert len(list(tmp_path.iterdir())) == 1


def test_whatever_the_statistics_depend_on_makes_another_file(
    tmp_path: Path, net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    x = pixels(4)
    collect(net, x, tmp_path)
    changed = x.copy()
    changed[3, 0, 0, 0] ^= 1
    other = onnx.ModelProto()
    other.CopyFrom(net)
    next(t for t in other.graph.initializer if t.name == "head.b").raw_data = np.ones(3, np.float32).tobytes()
    heavier = CalibrationRequest({**REQUEST.observed, "sum": ChannelImportance(1, np.full(8, 2))}, REQUEST.means, 7)
    collect(net, changed, tmp_path)
    collect(net, x[:3], tmp_path)
    collect(other, x, tmp_path)
    collect(net, x, tmp_path, request=heavier)
    collect(net, x, tmp_path, request=CalibrationRequest(REQUEST.observed, REQUEST.means, 3))
    collect(net, x, tmp_path, request=CalibrationRequest(REQUEST.observed, {"pw": 1}, 7))
    observe(model_of(net), x, REQUEST, execution=Execution(1, 4), memo=tmp_path)
    assert len(list(tmp_path.iterdir())) == 8


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied"])
def test_a_damaged_file_is_made_again(
    tmp_path: Path, net: onnx.ModelProto, pixels: Callable[..., np.ndarray], damage: str
) -> None:
    first = collect(net, pixels(4), tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    broken = {
        "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "cut": whole[:middle],
        "emptied": b"",
    }
    path.write_bytes(broken[damage])
    events: list[Event] = []
    same(collect(net, pixels(4), tmp_path, emit=events.append), first)
    assert calibrated(events) == [2, 4]
    assert path.read_bytes() == whole


def test_another_method_reads_the_same_statistics(
    tmp_path: Path, net: onnx.ModelProto, pixels: Callable[..., np.ndarray]
) -> None:
    x = pixels(12)
    for name in ("mse", "minmax", "percentile", "entropy", "output_error", "gptq", "auto"):
        events: list[Event] = []
        method = static_method(name, 8)
        kept = quantize_static(net, PLACEMENT, x, method, execution=EXECUTION, emit=events.append, memo=tmp_path)
        assert bool(calibrated(events)) == (name in {"mse", "gptq"})  # gptq equalises first: another graph
        fresh = quantize_static(net, PLACEMENT, x, method, execution=EXECUTION)
        assert kept.model.SerializeToString(deterministic=True) == fresh.model.SerializeToString(deterministic=True)


def test_the_stage_keeps_them_where_other_configs_find_them(
    tmp_path: Path, net: onnx.ModelProto, data_folder: Path
) -> None:
    (tmp_path / "graph").mkdir()
    onnx.save(net, tmp_path / "graph/model.onnx")
    inputs = {"graph": tmp_path / "graph", "data": data_folder}
    passes = []
    for name in ("mse", "entropy"):
        events: list[Event] = []
        (tmp_path / name).mkdir()
        context = Context(tmp_path / name, tmp_path / "work", 0, 1, events.append, tmp_path / "memo")
        config = CompressConfig(method=name, calib_images=16, bias_images=8)  # type: ignore[arg-type] # two of its names
        run(context, inputs, config)
        passes.append(len(calibrated(events)))
    assert passes == [2, 0]

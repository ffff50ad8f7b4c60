import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from edgeft.core.errors import DeviceError, UsageError
from edgeft.runtime import worker
from edgeft.runtime.launch import launch
from edgeft.runtime.session import AnyModel
from edgeft.runtime.worker import Request, measure, peak_rss_bytes


@pytest.fixture
def request_(tiny_graph: Path) -> Request:
    return Request(str(tiny_graph), 1, spinning=False, samples=12, warmup=1, max_seconds=5.0)


def test_every_sample_comes_back(request_: Request) -> None:
    timing = measure(request_)
    assert len(timing.samples_ms) == 12
    assert min(timing.samples_ms) > 0
    assert timing.load_ms > 0
    assert timing.first_ms > 0
    assert timing.peak_rss_bytes >= timing.base_rss_bytes > 1_000_000


def test_a_slow_model_still_gives_five_samples(request_: Request) -> None:
    assert len(measure(replace(request_, samples=100, max_seconds=0.0)).samples_ms) == 5


def test_inputs_cycle_and_are_fed_one_by_one(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    np.savez(tmp_path / "golden.npz", pixels=pixels)
    seen: list[int] = []
    monkeypatch.setattr(
        AnyModel, "run", lambda _, feeds: seen.append((len(feeds["pixels"]), int(feeds["pixels"][0, 0, 0, 0])))
    )
    for name in ("pixels.npy", "golden.npz"):
        seen.clear()
        measure(replace(request_, inputs=str(tmp_path / name), samples=4, warmup=2))
        assert seen == [(1, 0), (1, 0), (1, 1), (1, 0), (1, 1), (1, 2), (1, 0)]


@pytest.mark.parametrize("shape", [(0, 16, 16, 3), (2, 8, 8, 3)])
def test_inputs_that_do_not_fit_are_refused(request_: Request, tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "bad.npy", np.zeros(shape, np.uint8))
    with pytest.raises(UsageError, match=r"bad\.npy"):
        measure(replace(request_, inputs=str(tmp_path / "bad.npy")))


def test_missing_inputs_are_named(request_: Request, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(2))
    for name in ("gone.npy", "other.npz"):
        with pytest.raises(UsageError, match=name.replace(".", r"\.")):
            measure(replace(request_, inputs=str(tmp_path / name)))


def test_any_model_with_one_input_is_timed(request_: Request, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    float_input = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "L", 4])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [float_input], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (tmp_path / "relu.onnx").write_bytes(model.SerializeToString())
    np.save(tmp_path / "x.npy", np.zeros((2, 5, 4), np.float32))
    foreign = replace(request_, model=str(tmp_path / "relu.onnx"))
    assert len(measure(replace(foreign, inputs=str(tmp_path / "x.npy"))).samples_ms) == 12
    with pytest.raises(UsageError, match="open sizes"):
        measure(foreign)
    np.save(tmp_path / "x.npy", np.zeros((2, 5, 3), np.float32))
    with pytest.raises(UsageError, match="expected float32"):
        measure(replace(foreign, inputs=str(tmp_path / "x.npy")))


def test_a_model_with_several_inputs_is_fed_by_name(request_: Request, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    taken = [helper.make_tensor_value_info(name, TensorProto.INT64, ["N", "L"]) for name in ("ids", "mask")]
    output = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    graph = helper.make_graph([helper.make_node("Mul", ["ids", "mask"], ["y"])], "mul", taken, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (tmp_path / "mul.onnx").write_bytes(model.SerializeToString())
    text = replace(request_, model=str(tmp_path / "mul.onnx"), inputs=str(tmp_path / "text.npz"))
    np.savez(tmp_path / "text.npz", ids=np.ones((3, 5), np.int64), mask=np.ones((3, 5), np.int64))
    assert len(measure(text).samples_ms) == 12
    np.savez(tmp_path / "text.npz", ids=np.ones((3, 5), np.int64), mask=np.ones((2, 5), np.int64))
    with pytest.raises(UsageError, match="mask: int64"):
        measure(text)
    np.savez(tmp_path / "text.npz", ids=np.ones((3, 5), np.int64))
    with pytest.raises(UsageError, match="nothing to time ids, mask with"):
        measure(text)


def test_end_to_end_reads_raw_files(request_: Request, tiny_images: Path) -> None:
    contract = {"height": 16, "width": 16, "resize": "squash", "resize_to": None, "filter": "bilinear"}
    contract |= {"mean": [127.0] * 3, "std": [128.0] * 3}
    raw = replace(request_, images=(str(tiny_images / "red" / "0.png"),), contract=contract)
    assert len(measure(raw).samples_ms) == 12
    with pytest.raises(UsageError, match="input contract"):
        measure(replace(raw, contract=None))


def test_a_fresh_process_answers(request_: Request) -> None:
    timing = launch(request_)
    assert len(timing.samples_ms) == 12


def test_a_target_with_a_runtime_of_its_own_is_timed_in_it(request_: Request, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", pixels=np.zeros((2, 16, 16, 3), np.uint8))
    target = replace(request_, exporter="edgeft_exporters.openvino:OpenVinoExporter", inputs=str(tmp_path / "x.npz"))
    assert len(launch(target).samples_ms) == 12
    with pytest.raises(UsageError, match="arrays by input name"):
        measure(replace(target, inputs=None))


def test_memory_is_the_workers_own(request_: Request) -> None:
    """ru_maxrss survives exec: a large parent would be reported as the model's memory."""
    ballast = np.ones(400_000_000, np.uint8)
    assert peak_rss_bytes() > len(ballast)
    assert launch(request_).peak_rss_bytes < 350_000_000


def test_a_failing_process_is_a_device_error(request_: Request, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"gone\.onnx"):
        launch(replace(request_, model=str(tmp_path / "gone.onnx")))
    with pytest.raises(DeviceError, match="the process ended with 1"):
        launch(replace(request_, samples="many"))  # type: ignore[arg-type]  # a defect must not look like a timing


def test_errors_are_one_json_line(request_: Request, capsys: pytest.CaptureFixture[str]) -> None:
    code = worker.main([json.dumps(asdict(replace(request_, model="gone.onnx")))])
    answer = json.loads(capsys.readouterr().out)
    assert code == answer["exit_code"] == 4
    assert "gone.onnx" in answer["error"]

"""The engine's code runs against TensorRT's declared signatures: what TensorRT itself would do is not tested here."""

import ctypes
import importlib
import json
import re
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeft.core.errors import DeviceError, EdgeftError
from edgeft_exporters.tensorrt import TensorRtExporter
from edgeft_exporters.tensorrt.options import EngineOptions

DOUBLES = Path(__file__).parent / "doubles"
LOADED = ("tensorrt", "edgeft_exporters.tensorrt.engine", "edgeft_exporters.tensorrt.session")


class Cuda:
    """CUDA's runtime with memory of this process."""

    cudaError_t = IntEnum("cudaError_t", {"cudaSuccess": 0, "cudaErrorMemoryAllocation": 2})  # noqa: N815
    cudaMemcpyKind = IntEnum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})  # noqa: N815

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}
        self.freed: list[int] = []
        self.full = False
        self.devices = 1

    def cudaGetDeviceCount(self) -> tuple[Any, int]:  # noqa: N802
        return self.cudaError_t.cudaSuccess, self.devices

    def cudaMalloc(self, size: int) -> tuple[Any, int]:  # noqa: N802
        if self.full:
            return self.cudaError_t.cudaErrorMemoryAllocation, 0
        block = ctypes.create_string_buffer(size)
        self.blocks[ctypes.addressof(block)] = block
        return self.cudaError_t.cudaSuccess, ctypes.addressof(block)

    def cudaFree(self, address: int) -> tuple[Any]:  # noqa: N802
        self.freed.append(address)
        return (self.cudaError_t.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, source: int, count: int, kind: object, stream: int) -> tuple[Any]:  # noqa: N802
        assert stream == 7
        del kind
        ctypes.memmove(to, source, count)
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamCreate(self) -> tuple[Any, int]:  # noqa: N802
        return self.cudaError_t.cudaSuccess, 7

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any]:  # noqa: N802
        del stream
        return (self.cudaError_t.cudaSuccess,)

    cudaStreamDestroy = cudaStreamSynchronize  # noqa: N815

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, Any]:  # noqa: N802
        assert device == 0
        return self.cudaError_t.cudaSuccess, SimpleNamespace(name=b"Orin", major=8, minor=7)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(DOUBLES)
    for name in LOADED:
        monkeypatch.delitem(sys.modules, name, raising=False)
    double = importlib.import_module("tensorrt")
    double.answers.update(
        {
            "INetworkDefinition.num_inputs": 1,
            "ITensor.name": "pixels",
            "ITensor.shape": (-1, 8, 8, 3),
            "Builder.num_DLA_cores": 2,
            "IHostMemory.bytes": b"engine",
        }
    )
    yield double
    for name in LOADED:
        sys.modules.pop(name, None)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    from edgeft_exporters.tensorrt import present

    double = Cuda()
    monkeypatch.setattr(present, "cudart", lambda: double)
    return double


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"onnx")
    return path


def build(model: Path, options: EngineOptions) -> Any:  # noqa: ANN401
    return importlib.import_module("edgeft_exporters.tensorrt.engine").build(model, options)


def called(trt: ModuleType, name: str) -> list[tuple[Any, ...]]:
    return [call[1:] for call in trt.calls if call[0] == name]


def test_an_open_batch_gets_a_profile_and_the_rest_is_left_to_tensorrt(trt: ModuleType, model: Path) -> None:
    assert build(model, EngineOptions()).data == b"engine"
    assert called(trt, "Builder.create_network") == [(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED),)]
    assert called(trt, "OnnxParser.parse") == [(b"onnx",)]
    assert called(trt, "IOptimizationProfile.set_shape") == [("pixels", (1, 8, 8, 3), (1, 8, 8, 3), (8, 8, 8, 3))]
    assert len(called(trt, "IBuilderConfig.add_optimization_profile")) == 1
    for untouched in ("set_memory_pool_limit", "set_flag", "set_timing_cache", "DLA_core"):
        assert called(trt, f"IBuilderConfig.{untouched}") == []


def test_fixed_shapes_need_no_profile_and_lengths_follow_the_options(trt: ModuleType, model: Path) -> None:
    trt.answers["ITensor.shape"] = (1, 8, 8, 3)
    build(model, EngineOptions())
    assert called(trt, "IOptimizationProfile.set_shape") == []
    trt.answers["ITensor.shape"] = (-1, -1)
    build(model, EngineOptions(largest_batch=4, length=64))
    assert called(trt, "IOptimizationProfile.set_shape") == [("pixels", (1, 1), (1, 64), (4, 64))]


def test_workspace_and_dla_reach_the_config(trt: ModuleType, model: Path) -> None:
    build(model, EngineOptions(workspace_bytes=1 << 20, dla_core=1))
    ((pool, size),) = called(trt, "IBuilderConfig.set_memory_pool_limit")
    assert (pool.name, size) == ("WORKSPACE", 1 << 20)
    assert [value.name for (value,) in called(trt, "IBuilderConfig.default_device_type")] == ["DLA"]
    assert called(trt, "IBuilderConfig.DLA_core") == [(1,)]
    assert [flag.name for (flag,) in called(trt, "IBuilderConfig.set_flag")] == ["GPU_FALLBACK"]
    with pytest.raises(DeviceError, match="DLA core 2: this device has 2"):
        build(model, EngineOptions(dla_core=2))


def test_the_timing_cache_is_read_and_written(trt: ModuleType, model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    assert build(model, EngineOptions(timing_cache=cache)).notes == ()
    assert called(trt, "IBuilderConfig.create_timing_cache") == [(b"",)]
    assert cache.read_bytes() == b"engine"  # what the double serialises
    build(model, EngineOptions(timing_cache=cache))
    assert called(trt, "IBuilderConfig.create_timing_cache")[-1] == (b"engine",)


def test_timings_of_another_device_are_told(trt: ModuleType, model: Path, tmp_path: Path) -> None:
    trt.answers["IBuilderConfig.set_timing_cache"] = False
    notes = build(model, EngineOptions(timing_cache=tmp_path / "timing.cache")).notes
    assert any("timings of another device or version, measured anew" in note for note in notes)


def test_what_the_parser_refuses_is_named(trt: ModuleType, model: Path) -> None:
    trt.answers |= {
        "OnnxParser.parse": False,
        "OnnxParser.num_errors": 1,
        "ParserError.node_operator": "QuantizeLinear",
        "ParserError.node_name": "x::Q",
        "ParserError.desc": "Non-zero zero point is not supported",
    }
    with pytest.raises(EdgeftError, match="cannot read it: QuantizeLinear 'x::Q': Non-zero zero point"):
        build(model, EngineOptions())


def test_what_the_builder_says_is_kept(trt: ModuleType, model: Path) -> None:
    def refuse(network: object, config: object) -> None:
        del network, config
        engine = sys.modules["edgeft_exporters.tensorrt.engine"]
        logger = made[-1]
        assert isinstance(logger, engine.Messages)
        logger.log(trt.ILogger.Severity.WARNING, "slow")
        logger.log(trt.ILogger.Severity.INFO, "hello")
        logger.log(trt.ILogger.Severity.ERROR, "no kernel for conv")

    made: list[Any] = []

    def keep(logger: object) -> None:
        made.append(logger)

    module = importlib.import_module("edgeft_exporters.tensorrt.engine")
    trt.ILogger.__init__ = keep
    trt.answers["Builder.build_serialized_network"] = refuse
    with pytest.raises(EdgeftError, match=r"cannot build it: no kernel for conv$"):
        module.build(model, EngineOptions())


def test_a_missing_file_is_a_device_error(trt: ModuleType, tmp_path: Path) -> None:
    del trt
    with pytest.raises(DeviceError, match=r"none\.onnx: cannot be read"):
        build(tmp_path / "none.onnx", EngineOptions())


@pytest.fixture
def doubling(trt: ModuleType, cuda: Cuda) -> dict[str, int]:
    """An engine that returns twice its input: x float32 [N, 2] -> y float32 [N, 2]."""
    addresses: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}

    def place(name: str, address: int) -> bool:
        addresses[name] = address
        return True

    def shape(name: str, sizes: tuple[int, ...]) -> bool:
        shapes[name] = sizes
        return sizes[0] <= 3

    def run(stream: int) -> bool:
        assert stream == 7
        size = int(np.prod(shapes["x"])) * 4
        x = np.frombuffer(ctypes.string_at(addresses["x"], size), np.float32)
        ctypes.memmove(addresses["y"], (2 * x).tobytes(), size)
        return True

    del cuda
    trt.answers |= {
        "ICudaEngine.num_io_tensors": 2,
        "ICudaEngine.get_tensor_name": lambda index: "xy"[index],
        "ICudaEngine.get_tensor_mode": lambda name: getattr(trt.TensorIOMode, {"x": "INPUT", "y": "OUTPUT"}[name]),
        "ICudaEngine.get_tensor_dtype": lambda _: trt.DataType.FLOAT,
        "IExecutionContext.set_tensor_address": place,
        "IExecutionContext.set_input_shape": shape,
        "IExecutionContext.get_tensor_shape": lambda _: shapes["x"],
        "IExecutionContext.execute_async_v3": run,
    }
    return addresses


def test_a_session_copies_in_runs_and_copies_out(doubling: dict[str, int], cuda: Cuda, tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"engine")
    run = TensorRtExporter().session(tmp_path / "model.engine", 1)
    x = np.arange(4, dtype=np.float32).reshape(2, 2)
    np.testing.assert_array_equal(run({"x": x})[0], [[0, 2], [4, 6]])
    small = dict(doubling)
    np.testing.assert_array_equal(run({"x": x[:1].T.copy().T})[0], [[0, 2]])
    assert doubling == small
    assert cuda.freed == []
    np.testing.assert_array_equal(run({"x": np.ones((3, 2), np.float32)})[0], np.full((3, 2), 2))
    assert sorted(cuda.freed) == sorted(small.values())
    del run
    assert len(cuda.freed) == 4


@pytest.mark.usefixtures("doubling")
def test_inputs_that_do_not_fit_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"engine")
    run = TensorRtExporter().session(tmp_path / "model.engine", 1)
    for inputs, expected in (
        ({}, r"inputs \[\], expected \['x'\]"),
        ({"x": np.ones((1, 2))}, "'x' is float64, expected float32"),
        ({"x": np.ones((4, 2), np.float32)}, r"shape \[4, 2\] is outside the engine's profile"),
    ):
        with pytest.raises(EdgeftError, match=expected):
            run(inputs)


@pytest.mark.usefixtures("doubling")
def test_a_full_device_is_a_device_error(cuda: Cuda, tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"engine")
    run = TensorRtExporter().session(tmp_path / "model.engine", 1)
    cuda.full = True
    with pytest.raises(DeviceError, match="cudaMalloc: cudaErrorMemoryAllocation"):
        run({"x": np.ones((1, 2), np.float32)})


def test_an_engine_of_another_device_is_refused(trt: ModuleType, cuda: Cuda, tmp_path: Path) -> None:
    del cuda
    trt.answers["Runtime.deserialize_cuda_engine"] = None
    (tmp_path / "model.engine").write_bytes(b"engine")
    with pytest.raises(EdgeftError, match="cannot load it") as error:
        TensorRtExporter().session(tmp_path / "model.engine", 1)
    assert "build it again on this device" in str(error.value.hint)


def test_an_onnx_file_is_built_first(trt: ModuleType, doubling: dict[str, int], model: Path) -> None:
    del doubling
    TensorRtExporter().session(model, 1)
    assert called(trt, "Runtime.deserialize_cuda_engine") == [(b"engine",)]


def test_no_gpu_is_told_by_name(trt: ModuleType, cuda: Cuda, tmp_path: Path) -> None:
    del trt
    cuda.devices = 0
    with pytest.raises(DeviceError, match=r"CUDA finds no GPU \(unverified on hardware\)"):
        TensorRtExporter().session(tmp_path / "model.engine", 1)


def test_the_fingerprint_is_what_an_engine_is_bound_to(trt: ModuleType, cuda: Cuda) -> None:
    del cuda
    assert TensorRtExporter().fingerprint() == {
        "runtime": "tensorrt",
        "version": trt.__version__,
        "gpu": "Orin",
        "compute_capability": "8.7",
    }


def test_the_wheels_version_is_the_one_that_docs_name() -> None:
    docs = (Path(__file__).parents[3] / "docs/targets.md").read_text()
    golden = json.loads((Path(__file__).parents[2] / "golden/tensorrt_signatures.json").read_text())
    named = re.search(r"tensorrt-cu13-bindings` ([\d.]+)", docs)
    assert named is not None
    assert golden["version"].startswith(named[1])

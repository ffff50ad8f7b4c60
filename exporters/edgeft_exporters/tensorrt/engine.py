"""An engine from an ONNX file, built with TensorRT's Python API on the device that will run it.

    ONNX -> OnnxParser -> strongly typed network -> BuilderConfig(workspace, timing cache, profile, DLA) -> engine

What build_engine.sh does with `trtexec`, for programs. Every name of TensorRT's that is used here is checked against
the signatures of NVIDIA's own wheel. Unverified on hardware: no engine was ever built where edgeft was made.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorrt as trt

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import DeviceError, EdgeftError
from edgeft_exporters.tensorrt.options import EngineOptions

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Engine:
    """A built engine: an executable for this GPU, driver and version of TensorRT.

    Args:
        data: what a file of it holds.
        notes: what TensorRT warned of while it built, and whether a timing cache was refused.
    """

    data: bytes
    notes: tuple[str, ...]


class Messages(trt.ILogger):  # type: ignore[misc]  # TensorRT ships no types
    """Keeps what TensorRT reports, so that an error can say it."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.kept: list[tuple[Any, str]] = []

    def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401 - TensorRT's enum
        """Keep warnings and errors."""
        if severity in {trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR, trt.ILogger.Severity.WARNING}:
            self.kept.append((severity, msg))

    def errors(self) -> str:
        """Return the first errors in one line."""
        found = [text for severity, text in self.kept if severity != trt.ILogger.Severity.WARNING]
        return "; ".join(found[:_SHOWN]) or "it gave no reason"


def build(model: Path, options: EngineOptions) -> Engine:
    """Return the engine of `model` for this device; a timing cache that `options` names is read and written.

    Args:
        model: the lowered ONNX file.
        options: memory, shapes, timing cache, DLA.

    Raises:
        DeviceError: the file cannot be read, or the DLA core is not there.
        EdgeftError: TensorRT refuses the model; names the operators.
        OSError: the timing cache cannot be read or written.
    """
    try:
        data = model.read_bytes()
    except OSError as error:
        raise DeviceError(f"{model}: cannot be read: {error.strerror}") from error
    messages = Messages()
    builder = trt.Builder(messages)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, messages)
    if not parser.parse(data):
        raise EdgeftError(
            f"{model}: TensorRT {trt.__version__} cannot read it: {'; '.join(_parser_errors(parser))}",
            hint="edgeft quantize --target tensorrt names what breaks its rules",
        )
    config = builder.create_builder_config()
    _configure_(config, builder, network, options)
    refused = None if options.timing_cache is None else _use_timing_cache_(config, options.timing_cache)
    made = builder.build_serialized_network(network, config)
    if made is None:
        raise EdgeftError(f"{model}: TensorRT {trt.__version__} cannot build it: {messages.errors()}")
    if options.timing_cache is not None:
        write_atomic(options.timing_cache, bytes(config.get_timing_cache().serialize()))
    warned = (text for _, text in messages.kept)
    return Engine(bytes(made), (*([refused] if refused else ()), *dict.fromkeys(warned)))


def _parser_errors(parser: Any) -> Iterator[str]:  # noqa: ANN401 - TensorRT's OnnxParser
    for index in range(min(parser.num_errors, _SHOWN)):
        error = parser.get_error(index)
        yield f"{error.node_operator()} {error.node_name()!r}: {error.desc()}"


def _configure_(config: Any, builder: Any, network: Any, options: EngineOptions) -> None:  # noqa: ANN401 - TensorRT and CUDA ship no types
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.dla_core is not None:
        if options.dla_core >= builder.num_DLA_cores:
            raise DeviceError(
                f"DLA core {options.dla_core}: this device has {builder.num_DLA_cores}", hint="build without dla_core"
            )
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    shapes = {value.name: tuple(value.shape) for value in inputs}
    if any(size < 0 for shape in shapes.values() for size in shape):
        profile = builder.create_optimization_profile()
        for name, shape in shapes.items():
            profile.set_shape(name, *(trt.Dims(sizes) for sizes in _profile(shape, options)))
        config.add_optimization_profile(profile)


def _profile(shape: Sequence[int], options: EngineOptions) -> Iterator[tuple[int, ...]]:
    """Yield the smallest, the usual and the largest sizes of `shape`, whose open axes are negative."""
    for batch, length in ((1, 1), (1, options.length), (options.largest_batch, options.length)):
        yield tuple(size if size >= 0 else length if axis else batch for axis, size in enumerate(shape))


def _use_timing_cache_(config: Any, path: Path) -> str | None:  # noqa: ANN401 - TensorRT's IBuilderConfig
    """Give `config` the timings in `path`; return why they are not used, where they are not."""
    known = path.read_bytes() if path.is_file() else b""
    if config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False):
        return None
    config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return f"{path}: timings of another device or version, measured anew"

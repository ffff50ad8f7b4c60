"""The exporter object that the catalog finds; each method is one module of this package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from edgeft.core.errors import DeviceError
from edgeft.core.exporter import LintFinding, Session
from edgeft.core.stage import Json
from edgeft.quantize.placement import Placement
from edgeft_exporters.tensorrt.options import EngineOptions
from edgeft_exporters.tensorrt.placement import PLACEMENT
from edgeft_exporters.tensorrt.present import lacking

UNVERIFIED = "unverified on hardware"


class TensorRtExporter:
    """TensorRT, made ready here, built into an engine on the device.

    `cross` stays True where a GPU is at hand, until an engine was built and compared on one: see docs/targets.md.
    """

    name = "tensorrt"
    cross = True

    @property
    def placement(self) -> Placement:
        """Where Q/DQ may stand for TensorRT."""
        return PLACEMENT

    def lower(self, graph: Path, folder: Path) -> tuple[Path, ...]:
        """Write model.onnx, with pixels as TensorRT takes them, and build_engine.sh, which the device runs.

        Raises:
            DataError: it is no ONNX model, or keeps weights in other files.
            EdgeftError: the Q/DQ pairs break a rule of TensorRT's; names the operator.
        """
        from edgeft_exporters.tensorrt.lower import lower

        return lower(graph, folder)

    def lint(self, graph: Path) -> tuple[LintFinding, ...]:
        """List what TensorRT will compute in float, and every breach of its rules, read off the graph itself.

        Raises:
            DataError: it is no ONNX model, or keeps weights in other files.
        """
        from edgeft_exporters.tensorrt.conformance import lint

        return lint(graph)

    def session(self, file: Path, threads: int) -> Session:
        """Return a callable that runs `file` on this GPU; an .onnx file is built into an engine first, for minutes.

        Args:
            file: model.onnx as lowered, or an engine that build_engine.sh or `engine.build` made here.
            threads: at least 1; a GPU has no use for more.

        Raises:
            DeviceError: TensorRT or a GPU is missing, or the file cannot be read; says which.
            EdgeftError: TensorRT refuses the model.
        """
        reason = lacking()
        if reason is not None:
            _absent(f"{file} cannot be run: {reason}")
        if threads < 1:
            raise DeviceError(f"{threads} threads: at least one is needed", hint="--threads 1")
        from edgeft_exporters.tensorrt.engine import build
        from edgeft_exporters.tensorrt.session import open_engine

        try:
            data = build(file, EngineOptions()).data if file.suffix == ".onnx" else file.read_bytes()
        except OSError as error:
            raise DeviceError(f"{file}: cannot be read: {error.strerror}") from error
        return open_engine(data, str(file))

    def profile(self, graph: Path, threads: int, inputs: Mapping[str, Any]) -> Mapping[str, float]:
        """Refuse: TensorRT times fused layers, not tensors of the graph.

        Raises:
            DeviceError: always.
        """
        del threads, inputs
        raise DeviceError(
            f"{graph}: TensorRT has no time for each tensor, it fuses layers ({UNVERIFIED})",
            hint="time its layers on the device: build_engine.sh --dumpProfile",
        )

    def fingerprint(self) -> dict[str, Json]:
        """Return the GPU, its compute capability, and TensorRT's version.

        Raises:
            DeviceError: TensorRT or a GPU is missing; says which.
        """
        reason = lacking()
        if reason is not None:
            _absent(f"there are no device facts: {reason}")
        from edgeft_exporters.tensorrt.session import device_facts

        return device_facts()


def _absent(what: str) -> NoReturn:
    raise DeviceError(
        f"TensorRT does not run here: {what} ({UNVERIFIED})",
        hint="copy the lowered folder to the device and run build_engine.sh there",
    )

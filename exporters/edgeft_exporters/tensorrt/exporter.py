"""The exporter object that the catalog finds; each method is one module of this package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from edgeft.core.errors import DeviceError
from edgeft.core.exporter import LintFinding, Session
from edgeft.core.stage import Json
from edgeft.quantize.placement import Placement
from edgeft_exporters.tensorrt.placement import PLACEMENT

UNVERIFIED = "unverified on hardware"


class TensorRtExporter:
    """TensorRT, made ready here, built into an engine on the device."""

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
        """Refuse: engines run on the device.

        Raises:
            DeviceError: always.
        """
        _absent(f"{file} cannot be run with {threads} threads")

    def profile(self, graph: Path, threads: int, inputs: Mapping[str, Any]) -> Mapping[str, float]:
        """Refuse: engines run on the device.

        Raises:
            DeviceError: always.
        """
        _absent(f"{graph} cannot be profiled on {len(inputs)} inputs with {threads} threads")

    def fingerprint(self) -> dict[str, Json]:
        """Refuse: the device is another one.

        Raises:
            DeviceError: always.
        """
        _absent("there are no device facts")


def _absent(what: str) -> NoReturn:
    raise DeviceError(
        f"TensorRT does not run here: {what} ({UNVERIFIED})",
        hint="copy the lowered folder to the device and run build_engine.sh there",
    )

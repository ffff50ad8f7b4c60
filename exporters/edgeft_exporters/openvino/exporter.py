"""The exporter object that the catalog finds; each method is one module of this package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeft.core.errors import DeviceError
from edgeft.core.exporter import LintFinding, Session
from edgeft.core.stage import Json
from edgeft.quantize.placement import Placement
from edgeft_exporters.openvino.placement import PLACEMENT


class OpenVinoExporter:
    """OpenVINO, CPU plugin."""

    name = "openvino"
    cross = False
    needs = ("openvino",)

    @property
    def placement(self) -> Placement:
        """Where Q/DQ may stand for OpenVINO's CPU plugin."""
        return PLACEMENT

    def lower(self, graph: Path, folder: Path) -> tuple[Path, ...]:
        """Write `graph` to `folder` as model.onnx, the artifact of record, and as OpenVINO's model.xml and model.bin.

        Raises:
            DeviceError: openvino is not installed.
            EdgeftError: OpenVINO refuses the model.
            DataError: it is no ONNX model, or keeps weights in other files.
        """
        _require_openvino()
        from edgeft_exporters.openvino.lower import lower

        return lower(graph, folder)

    def lint(self, graph: Path) -> tuple[LintFinding, ...]:
        """List what OpenVINO runs in float, read off its own compiled model.

        Raises:
            DeviceError: openvino is not installed.
            EdgeftError: OpenVINO refuses the model.
            DataError: it is no ONNX model, or keeps weights in other files.
        """
        _require_openvino()
        from edgeft_exporters.openvino.lint import lint

        return lint(graph)

    def session(self, file: Path, threads: int) -> Session:
        """Return a callable that runs `file`, .onnx or .xml, with `threads` threads, in float32 where it is float.

        Raises:
            DeviceError: openvino is not installed, or the file cannot be read.
            EdgeftError: OpenVINO refuses the model.
        """
        _require_openvino()
        from edgeft_exporters.openvino.session import session

        return session(file, threads)

    def profile(self, graph: Path, threads: int, inputs: Mapping[str, Any]) -> Mapping[str, float]:
        """Return the milliseconds spent on making each tensor of `graph`, for one run on `inputs`.

        Raises:
            DeviceError: openvino is not installed.
            EdgeftError: OpenVINO refuses the model.
            DataError: it is no ONNX model, or keeps weights in other files.
        """
        _require_openvino()
        from edgeft_exporters.openvino.profile import profile

        return profile(graph, threads, inputs)

    def fingerprint(self) -> dict[str, Json]:
        """Return CPU model, instruction sets, cores and OpenVINO's version.

        Raises:
            DeviceError: openvino is not installed.
        """
        _require_openvino()
        import openvino

        from edgeft_exporters.processor import processor

        return {"runtime": "openvino", "version": str(openvino.__version__), "provider": "CPU", **processor()}


def _require_openvino() -> None:
    try:
        import openvino  # noqa: F401 - asked for, not used
    except ImportError as error:
        raise DeviceError(
            f"the target openvino needs the package openvino: {error}", hint="pip install 'edgeft[openvino]'"
        ) from error

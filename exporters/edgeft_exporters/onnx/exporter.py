"""The exporter object that the catalog finds; each method is one module of this package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeft.core.exporter import LintFinding, Session
from edgeft.core.stage import Json
from edgeft.quantize.placement import Placement
from edgeft_exporters.onnx.placement import PLACEMENT


class OnnxExporter:
    """onnxruntime, CPU execution provider."""

    name = "onnx"
    cross = False

    @property
    def placement(self) -> Placement:
        """Where Q/DQ may stand for onnxruntime on x86."""
        return PLACEMENT

    def lower(self, graph: Path, folder: Path) -> tuple[Path, ...]:
        """Copy `graph` to `folder`/model.onnx and prove that onnxruntime loads it.

        Raises:
            EdgeftError: onnxruntime refuses it.
            DataError: it is no ONNX model, or keeps weights in other files.
        """
        from edgeft_exporters.onnx.lower import lower

        return lower(graph, folder)

    def lint(self, graph: Path) -> tuple[LintFinding, ...]:
        """List what onnxruntime runs in float, and every Q and DQ that it runs on its own.

        Raises:
            EdgeftError: onnxruntime refuses the model.
            DataError: it is no ONNX model, or keeps weights in other files.
        """
        from edgeft_exporters.onnx.lint import lint

        return lint(graph)

    def session(self, file: Path, threads: int) -> Session:
        """Return a callable that runs `file` with `threads` intra-op threads; idle threads do not spin.

        Raises:
            EdgeftError: onnxruntime refuses the model.
            IntegrityError: it keeps weights in other files.
        """
        from edgeft_exporters.onnx.session import session

        return session(file, threads)

    def profile(self, graph: Path, threads: int, inputs: Mapping[str, Any]) -> Mapping[str, float]:
        """Return the milliseconds spent on making each tensor of `graph`, for one run on `inputs`.

        Raises:
            EdgeftError: onnxruntime refuses the model.
            DataError: it is no ONNX model, or keeps weights in other files.
        """
        from edgeft_exporters.onnx.profile import profile

        return profile(graph, threads, inputs)

    def fingerprint(self) -> dict[str, Json]:
        """Return CPU model, instruction sets, cores and onnxruntime's version."""
        import onnxruntime

        from edgeft_exporters.processor import processor

        version = str(onnxruntime.__version__)
        return {"runtime": "onnxruntime", "version": version, "provider": "CPUExecutionProvider", **processor()}

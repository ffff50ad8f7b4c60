"""The exporter object that the catalog finds; each method is one module of this package."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeft.core.errors import DeviceError
from edgeft.core.exporter import LintFinding, Session
from edgeft.core.stage import Json
from edgeft.quantize.placement import Placement
from edgeft_exporters.onnx.placement import ARM64, PLACEMENT, VNNI


class OnnxExporter:
    """onnxruntime, CPU execution provider, on any CPU: weights are pair-safe."""

    name = "onnx"
    cross = False
    rules = PLACEMENT

    @property
    def placement(self) -> Placement:
        """Where Q/DQ may stand for onnxruntime."""
        return self.rules

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

        return lint(graph, self.rules)

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


class OnnxVnniExporter(OnnxExporter):
    """onnxruntime on x86 CPUs that add products in 32 bits: the full range of weights."""

    name = "onnx-vnni"
    rules = VNNI

    def session(self, file: Path, threads: int) -> Session:
        """Return a callable that runs `file`; see `OnnxExporter.session`.

        Raises:
            DeviceError: this CPU adds in saturating 16 bits, so it would give other numbers.
        """
        _require_exact_sums(self.name)
        return super().session(file, threads)

    def fingerprint(self) -> dict[str, Json]:
        """Return the facts of this device; see `OnnxExporter.fingerprint`.

        Raises:
            DeviceError: this CPU adds in saturating 16 bits.
        """
        _require_exact_sums(self.name)
        return super().fingerprint()


class OnnxArm64Exporter(OnnxExporter):
    """onnxruntime on ARM64: int8 activations. Elsewhere its files are made and answered, but not timed."""

    name = "onnx-arm64"
    rules = ARM64

    @property
    def cross(self) -> bool:  # type: ignore[override]  # there a class attribute: here it depends on the machine
        """Whether this machine is another one than the device."""
        return platform.machine() not in {"aarch64", "arm64"}

    def require(self) -> None:
        """Refuse to answer for ARM64 where sums saturate: its weights use the full range.

        Raises:
            DeviceError: this CPU adds in saturating 16 bits.
        """
        if self.cross:
            _require_exact_sums(self.name)

    def lint(self, graph: Path) -> tuple[LintFinding, ...]:
        """List what runs in float: as the runtime shows it on ARM64, elsewhere by the contract alone.

        Raises:
            EdgeftError: onnxruntime refuses the model.
            DataError: it is no ONNX model, or keeps weights in other files.
        """
        if not self.cross:
            return super().lint(graph)
        from edgeft_exporters.contract import by_contract

        return by_contract(graph, self.rules)

    def fingerprint(self) -> dict[str, Json]:
        """Return the facts of this device; see `OnnxExporter.fingerprint`.

        Raises:
            DeviceError: this is no ARM64 processor.
        """
        if self.cross:
            raise DeviceError(
                f"{self.name} runs on ARM64, this is {platform.machine()} (unverified on hardware)",
                hint="time it there: edgeft bench BUNDLE --device ssh://...",
            )
        return super().fingerprint()


def _require_exact_sums(name: str) -> None:
    from edgeft.runtime.saturation import saturates

    if saturates():
        raise DeviceError(
            f"{name}: this CPU has no VNNI: it adds int8 products in saturating 16 bits, and would give other numbers",
            hint="use the target onnx: its weights are exact on every CPU",
        )

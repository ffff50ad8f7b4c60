"""What an exporter is: one target runtime's facts as data, and the functions that act on them.

Exporters join by the entry-point group `edgeft.exporters`; each entry point names a class with no-argument
constructor that satisfies `Exporter`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from edgeft.core.stage import Json

Session: TypeAlias = Callable[[Mapping[str, Any]], Sequence[Any]]
"""Runs a model: numpy arrays by input name -> numpy arrays in output order."""


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One operator that the target runs in float, or one stray Q/DQ: with its cause and what would mend it."""

    node: str
    op_type: str
    reason: str
    mend: str
    expected: bool
    """True where float is the right choice (e.g. the last Gemm by design)."""


class Exporter(Protocol):
    """One target runtime.

    It may have `needs`, names of the distributions that its results depend on beside its own and onnxruntime: their
    versions enter the keys of the stages that are for it. It may have `require()`, which raises DeviceError where its
    files cannot be answered here, before anything is made.
    """

    name: str
    cross: bool
    """Whether `lower` makes files for a device that need not be this one; `session` and `fingerprint` may fail here."""

    @property
    def placement(self) -> Any:  # noqa: ANN401 - edgeft.quantize.placement.Placement; core imports stdlib only
        """Which operators take int8, with which types and symmetries, and where Q/DQ may stand."""
        ...

    def lower(self, graph: Path, folder: Path) -> tuple[Path, ...]:
        """Write the target's files for the ONNX `graph` into `folder`; the first is the one `session` loads."""
        ...

    def lint(self, graph: Path) -> tuple[LintFinding, ...]:
        """List what the target would run in float, from its own optimised graph."""
        ...

    def session(self, file: Path, threads: int) -> Session:
        """Return a callable that runs `file` with `threads` intra-op threads."""
        ...

    def profile(self, graph: Path, threads: int, inputs: Mapping[str, Any]) -> Mapping[str, float]:
        """Return the milliseconds that the runtime spends on making each tensor of `graph`, for one run on `inputs`."""
        ...

    def fingerprint(self) -> dict[str, Json]:
        """Return the facts of this device and runtime that a timing depends on."""
        ...

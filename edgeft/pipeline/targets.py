"""Which runtimes a model can be made for, what each takes in int8, and whether it works on this machine."""

from dataclasses import asdict, dataclass
from typing import cast

from edgeft import catalog
from edgeft.core import machine
from edgeft.core.errors import EdgeftError
from edgeft.core.exporter import Exporter
from edgeft.core.stage import Json


@dataclass(frozen=True, slots=True)
class Target:
    """An exporter that is installed.

    Args:
        name: what `lower.targets` and `--target` take.
        works: whether files can be made for it here.
        runs: whether it runs here, so that it can be judged and timed.
        state: its version, or why it does not work or run here.
        hint: the command that mends it; None where there is none.
        activations: its type of quantized activations; None where it cannot be loaded, and likewise below.
        weights: its type of quantized weights.
        integer_operators: those that take int8.
        distribution: the package it comes from.
    """

    name: str
    works: bool
    runs: bool
    state: str
    hint: str | None
    activations: str | None
    weights: str | None
    integer_operators: tuple[str, ...]
    distribution: str

    def to_json(self) -> dict[str, Json]:
        """Return JSON values."""
        return cast("dict[str, Json]", {**asdict(self), "integer_operators": list(self.integer_operators)})


def targets() -> tuple[Target, ...]:
    """Return every exporter that is installed, broken ones with their reason."""
    return tuple(_target(name) for name in catalog.exporters())


def _target(name: str) -> Target:
    distribution = catalog.exporter_distribution(name) or "edgeft"
    try:
        exporter = catalog.exporter(name)
    except Exception as error:  # noqa: BLE001 - a broken tool is listed with its reason, whatever it raised
        state, hint = _why(error)
        return Target(name, False, False, state, hint, None, None, (), distribution)
    runs, (state, hint) = True, ("", None)
    try:
        state = _version(exporter)
    except Exception as error:  # noqa: BLE001 - the same
        runs, (state, hint) = False, _why(error)
    placement = exporter.placement
    return Target(
        name=name,
        works=runs or exporter.cross,
        runs=runs,
        state=state,
        hint=hint,
        activations=f"{placement.activation.dtype}, {_symmetry(symmetric=placement.activation.symmetric)}",
        weights=f"{placement.weight.dtype}, {_symmetry(symmetric=placement.weight.symmetric)}",
        integer_operators=(*(rule.op_type for rule in placement.rules), *placement.gates),
        distribution=distribution,
    )


def _version(exporter: Exporter) -> str:
    """Return runtime and version, without what is known of the machine anyway."""
    known = machine.facts()
    return ", ".join(f"{name} {value}" for name, value in exporter.fingerprint().items() if name not in known)


def _why(error: Exception) -> tuple[str, str | None]:
    if isinstance(error, EdgeftError):
        return str(error), error.hint
    return f"{type(error).__name__}: {error}", None


def _symmetry(*, symmetric: bool) -> str:
    return "symmetric" if symmetric else "asymmetric"

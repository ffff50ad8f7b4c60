"""The run record's small types: gates and their verdicts, stages as they ran."""

from dataclasses import dataclass
from enum import StrEnum

from edgeft.core.stage import Json


class Verdict(StrEnum):
    """What a gate decided."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class Gate:
    """One requirement and what was measured.

    Args:
        name: e.g. "accuracy", "latency vs_fp32", "parity torch > fp32".
        verdict: PASS, FAIL or INCONCLUSIVE.
        value: the point estimate, in `unit`.
        interval: its confidence interval (low, high), or None where the value is exact.
        limit: the bound it is held against, in `unit`.
        unit: e.g. "pp", "ratio", "ms".
        n: how many samples the value rests on.
        detail: one sentence a reader can act on.
        exit_code: the process's exit code when this gate FAILs (5 accuracy or parity, 6 latency).
    """

    name: str
    verdict: Verdict
    value: float
    interval: tuple[float, float] | None
    limit: float
    unit: str
    n: int
    detail: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One stage as it ran: its key, whether it was reused and why it ran, how long it took, what it found."""

    name: str
    method: str
    key: str
    reused: bool
    reason: str
    seconds: float
    measurements: dict[str, Json]
    notes: tuple[str, ...]
    timings: dict[str, Json]

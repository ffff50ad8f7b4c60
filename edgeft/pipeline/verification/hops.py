r"""What one hop of the way to the device changed: logits of the same images before and after.

Where a graph gives scores alone, logits are recovered from them up to a constant per image,

    z = T (log s - mean_k log s)        T the temperature in the graph

and both sides of such a hop are treated alike. Hop bars, on the largest logit error:

    torch > fp32          1e-3 * scale    the same float sums in another order, BatchNorm folded: about 1e-5 * scale
    fp32 > compressed     none            this hop may change numbers; its bar is the accuracy gate
    compressed > runtime  1e-3 * scale    float: another order of sums, as above
                          0.02 * scale    int8: sums are exact, rounding to 8 bits may go the other way once
    runtime > raw files   the same, and the pixels must be equal byte for byte

with scale = max(1, largest absolute centred logit).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeft.core.record import Gate, Verdict
from edgeft.verify.numerics import error_summary

Logits = npt.NDArray[np.float64]
Scores = npt.NDArray[np.float32]

ACCURACY_EXIT = 5
FLOAT_TOLERANCE = 1e-3
INTEGER_TOLERANCE = 0.02
_SMALLEST = 1e-37


@dataclass(frozen=True, slots=True)
class Hop:
    """One hop on the test split.

    Args:
        name: "before > after".
        n: images.
        max_abs_logit_error: largest difference of a logit.
        mean_abs_logit_error: mean absolute difference.
        flips: images whose decision changed.
        agreement: share of images whose decision did not.
        tolerance: bar on the largest error; None where the accuracy gate is the bar.
        verdict: PASS or FAIL; None where there is no bar.
        detail: what else was found; "" for nothing.
    """

    name: str
    n: int
    max_abs_logit_error: float
    mean_abs_logit_error: float
    flips: int
    agreement: float
    tolerance: float | None
    verdict: Verdict | None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def gate(self) -> Gate | None:
        """Return the hop as a gate; None where it has no bar."""
        if self.tolerance is None or self.verdict is None:
            return None
        passed = self.verdict is Verdict.PASS
        detail = f"{self.flips} of {self.n} decisions changed; largest logit error {self.max_abs_logit_error:.3g}"
        if self.detail:
            detail += f"; {self.detail}"
        if not passed:
            detail += f": the fault is in the step {self.name}"
        return Gate(
            name=f"parity {self.name}",
            verdict=self.verdict,
            value=self.max_abs_logit_error,
            interval=None,
            limit=self.tolerance,
            unit="logit",
            n=self.n,
            detail=detail,
            exit_code=ACCURACY_EXIT,
        )


def hop(name: str, before: Logits, after: Logits, relative: float | None, *, fault: str = "") -> Hop:
    """Compare logits [N, K] before and after a hop.

    Args:
        name: "before > after".
        before: the reference.
        after: after the hop.
        relative: tolerance as a share of the logits' scale; None for no bar.
        fault: a finding that fails the hop whatever the numbers say.

    Raises:
        DataError: shapes differ, or a value is not finite.
    """
    error = error_summary(before, after)
    flips = int((before.argmax(axis=1) != after.argmax(axis=1)).sum())
    tolerance = None if relative is None else relative * max(1.0, float(np.abs(centred(before)).max()))
    verdict = None
    if tolerance is not None:
        verdict = Verdict.PASS if error.max_abs <= tolerance and not fault else Verdict.FAIL
    return Hop(
        name=name,
        n=len(before),
        max_abs_logit_error=error.max_abs,
        mean_abs_logit_error=error.mean_abs,
        flips=flips,
        agreement=1 - flips / len(before),
        tolerance=tolerance,
        verdict=verdict,
        detail=fault,
    )


def from_scores(scores: Scores, temperature: float) -> Logits:
    """Return centred logits float64 [N, K] from calibrated scores float32 [N, K]."""
    return centred(temperature * np.log(np.maximum(scores.astype(np.float64), _SMALLEST)))


def centred(logits: npt.NDArray[np.floating]) -> Logits:
    """Return logits [N, K] less their mean over classes, which softmax does not see."""
    wide = logits.astype(np.float64)
    return np.asarray(wide - wide.mean(axis=1, keepdims=True))


def relative_tolerance(precision: str) -> float:
    """Return the tolerance of a runtime's rounding at `precision`, as a share of the logits' scale."""
    return FLOAT_TOLERANCE if precision == "fp32" else INTEGER_TOLERANCE

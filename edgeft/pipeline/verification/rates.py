"""What decisions are worth on the test split: held limits as gates, and what other limits would give."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeft.core.errors import DataError
from edgeft.core.record import Gate
from edgeft.pipeline.decide import SHIPPED, VALIDATION
from edgeft.pipeline.stage_configs import VerifyConfig
from edgeft.pipeline.verification.hops import ACCURACY_EXIT
from edgeft.verify.decision import fit
from edgeft.verify.inspection import rate
from edgeft.verify.verdicts import at_most

OVERKILL_LIMITS = (0.01, 0.02, 0.05, 0.1)
"""Overkill rates at which the recall of bad parts is told."""


def inspection_gates(block: dict[str, Any], config: VerifyConfig) -> list[Gate]:
    """Return a gate for each limit that the decisions were to hold.

    Args:
        block: `metrics.block` of what ships.
        config: the limits.
    """
    found = []
    limits = (
        ("escape", config.max_escape, "bad parts passed"),
        ("overkill", config.max_overkill, "good parts stopped"),
    )
    for name, limit, what in limits:
        if limit is not None:
            each = block["inspection"][name]
            interval, share = (each["low"], each["high"]), each["count"] / each["n"]
            detail = f"{each['count']} of {each['n']} {what} on the test split"
            verdict = at_most(*interval, limit)
            found.append(Gate(name, verdict, share, interval, limit, "share", each["n"], detail, ACCURACY_EXIT))
    return found


def operating_points(
    folder: Path, labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], ok: int
) -> list[dict[str, Any]]:
    """Return the recall of bad parts on the test split at thresholds that were fitted on validation.

    Args:
        folder: the decide stage's.
        labels: int64 [N] of the test split.
        scores: float32 [N, K] of what ships.
        ok: index of the class of good parts.
    """
    with np.load(folder / VALIDATION) as kept:
        fitted_labels, fitted_scores = kept["labels"], kept[SHIPPED]
    points = []
    for limit in OVERKILL_LIMITS:
        point: dict[str, Any] = {"max_overkill": limit}
        try:
            rule = fit(fitted_labels, fitted_scores, ok, max_overkill=limit)
        except DataError as error:
            points.append({**point, "reason": error.message})
            continue
        stopped, good = rule.decided(scores) != ok, labels == ok
        caught, overkill = (
            rate(int(stopped[~good].sum()), int((~good).sum())),
            rate(int(stopped[good].sum()), int(good.sum())),
        )
        points.append({**point, "stop_at": rule.stop_at, "recall": asdict(caught), "overkill": asdict(overkill)})
    return points

"""A stored baseline: what one model did on one device, to hold a later one against when the old one is not at hand.

It holds the ABBA rounds of the model against a small reference graph that ships with edgeft (how fast the machine is
on a day cancels, see verify/latency.py), the scores on evaluation data where there was some, and what a comparison
must not mix: device, versions, threads. One digest covers it all, so an edited file is refused.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeft import __version__
from edgeft.core import machine
from edgeft.core.atomic import write_atomic
from edgeft.core.digest import sha256_json
from edgeft.core.errors import DeviceError, IntegrityError, UsageError
from edgeft.core.keys import changes, versions
from edgeft.core.stage import Json

SCHEMA = 2
KIND = "baseline"
REFERENCE = Path(__file__).parents[1] / "runtime" / "reference.onnx"
"""Three 3x3 convolutions over [1, 32, 56, 56] float32; its weights are all 0.01, which no kernel is faster for."""
_NEEDS = ("numpy", "onnxruntime", "pillow")


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is stored.

    Args:
        subject: the model, see `Subject.to_json`.
        key: what must be equal for a comparison: device, versions, threads, inputs.
        round_logs: float64 [rounds], of the model against the reference.
        median_ms: of the model then.
        scores: float64 [N, K] on the evaluation data, or None.
        evaluation: digest of that data, or None.
        bench: what `edgeft bench` reported.
    """

    subject: dict[str, Any]
    key: dict[str, Any]
    round_logs: npt.NDArray[np.float64]
    median_ms: float
    scores: npt.NDArray[np.float64] | None
    evaluation: str | None
    bench: dict[str, Any]


def runtime_versions() -> dict[str, Json]:
    """Return the versions that a timing, or an answer, on this device depends on."""
    return {"edgeft": __version__, **versions(_NEEDS)}


def key(threads: int, *, spinning: bool, inputs: str) -> dict[str, Json]:
    """Return what two timings must share to be compared.

    Args:
        threads: intra-op threads.
        spinning: whether idle threads spin.
        inputs: what is fed.
    """
    return {
        "device": machine.cpu(),
        "versions": runtime_versions(),
        "threads": threads,
        "spinning": spinning,
        "inputs": inputs,
    }


def save(path: Path, baseline: Baseline) -> None:
    """Write `baseline` to `path`, whole or not at all."""
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": KIND,
        "subject": baseline.subject,
        "key": baseline.key,
        "round_logs": baseline.round_logs.tolist(),
        "median_ms": baseline.median_ms,
        "scores": None if baseline.scores is None else baseline.scores.tolist(),
        "evaluation": baseline.evaluation,
        "bench": baseline.bench,
    }
    plain = json.loads(json.dumps(values, allow_nan=False))
    write_atomic(path, json.dumps({**plain, "digest": sha256_json(plain)}, indent=1, ensure_ascii=False) + "\n")


def is_baseline(path: Path) -> bool:
    """Return whether `path` is meant to be a baseline, by its name."""
    return path.suffix == ".json"


def load(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        DeviceError: it cannot be read.
        IntegrityError: it is no baseline, of another schema, or was edited.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise DeviceError(
            f"{path}: cannot be read ({error.strerror})", hint=f"edgeft bench BUNDLE --save-baseline {path}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{path}: not JSON ({error})", hint="edgeft bench --save-baseline writes it anew"
        ) from error
    if not isinstance(values, dict) or values.get("kind") != KIND or values.get("schema") != SCHEMA:
        raise IntegrityError(f"{path}: no baseline of schema {SCHEMA}", hint="edgeft bench --save-baseline writes one")
    if not _is_as_written(values):
        raise IntegrityError(
            f"{path}: it was edited after it was written", hint="edgeft bench --save-baseline writes it anew"
        )
    scores = values["scores"]
    return Baseline(
        values["subject"],
        values["key"],
        np.asarray(values["round_logs"], np.float64),
        values["median_ms"],
        None if scores is None else np.asarray(scores, np.float64),
        values["evaluation"],
        values["bench"],
    )


def _is_as_written(values: dict[str, Any]) -> bool:
    """Take the digest out of `values` and return whether it is theirs."""
    digest = values.pop("digest", None)
    try:
        return bool(digest == sha256_json(values))
    except ValueError:  # NaN, an infinity or half a surrogate pair: Python reads them, `save` writes none
        return False


def require_same_key(path: Path, baseline: Baseline, here: dict[str, Json]) -> None:
    """Refuse a baseline from another device, other versions or other settings.

    Raises:
        UsageError: it names what differs.
    """
    found = [f"{'.'.join(change.path)}: {change.old} then, {change.new} now" for change in changes(baseline.key, here)]
    if found:
        raise UsageError(
            f"{path}: this baseline cannot be held against a run of now: {'; '.join(found)}",
            hint="make one here: edgeft bench BUNDLE --save-baseline FILE; or give the bundle itself as BASE",
        )

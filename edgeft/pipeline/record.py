"""The run record: everything a reader of a build may ask for, as one JSON object.

It is written to <cache>/runs/<run>/record.json, and is the bundle's report.json.
"""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeft.core.atomic import write_atomic
from edgeft.core.record import Gate, StageRecord

SCHEMA = 1
"""Version of the record's shape."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One build.

    Args:
        run: its id.
        status: "passed", "failed" or "inconclusive".
        exit_code: what the process should exit with.
        recipe: the recipe with every default.
        recipe_text: the recipe as it was written.
        bundle: the bundle's folder; of a failed build, the folder "NAME.failed" beside the place it did not earn.
        report: the HTML report.
        gates: the requirements and what was measured.
        stages: the stages as they ran.
        data: dataset.json of the data stage.
        candidates: candidates.json of the compress stage.
        choice: choice.json of the choose stage, with the reason and what was timed.
        lint: lint.json of the lower stage.
        verify: verify.json of the verify stage.
        latency: the ABBA comparison, or None where it was left out.
        history: history.json of the finetune stage.
        machine: facts of the machine that was measured on.
        versions: versions of edgeft and the libraries that took part.
        started: UTC, ISO 8601.
        seconds: how long the build took, up to the bundle.
        seed: the run's seed.
        targets: of a build for several, what came out for each; see `TargetResult.row`.
        student: of a build that distilled, who was taught: `base` and `weights` of a student by name, else None, and
            `history`, history.json of the distill stage. Else None.
        device: of a build that measured on another machine: its address, the bundle's check there, and facts of the
            machine that built; then `machine` is the device. Else None.
    """

    run: str
    status: str
    exit_code: int
    recipe: dict[str, Any]
    recipe_text: str
    bundle: str
    report: str
    gates: tuple[Gate, ...]
    stages: tuple[StageRecord, ...]
    data: dict[str, Any]
    candidates: dict[str, Any]
    choice: dict[str, Any]
    lint: list[Any]
    verify: dict[str, Any]
    latency: dict[str, Any] | None
    history: list[Any]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    started: str
    seconds: float
    seed: int
    targets: tuple[Mapping[str, Any], ...] = ()
    student: Mapping[str, Any] | None = None
    device: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        # A round trip makes plain what asdict leaves: enums as text, tuples as lists.
        plain: dict[str, Any] = json.loads(json.dumps({"schema": SCHEMA, **asdict(self)}, allow_nan=False))
        return plain


def new_run() -> tuple[str, str]:
    """Return a new run's id, which sorts by time, and its start as UTC in ISO 8601."""
    now = time.gmtime()
    return f"{time.strftime('%Y%m%d-%H%M%S', now)}-{secrets.token_hex(3)}", time.strftime("%Y-%m-%dT%H:%M:%SZ", now)


def write(record: RunRecord, cache: Path) -> Path:
    """Write the record below `cache` and return its path.

    Raises:
        OSError: the disk is full or the cache cannot be written.
    """
    path = cache / "runs" / record.run / "record.json"
    write_atomic(path, json.dumps(record.to_json(), indent=1, ensure_ascii=False))
    return path

"""From a finished walk to the bundle folder: which stage output becomes which part."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeft.core.record import Gate
from edgeft.core.stage import Json
from edgeft.pipeline.decide import DECISION, SHIPPED
from edgeft.pipeline.gates import LATENCY_EXIT
from edgeft.pipeline.record import RunRecord
from edgeft.pipeline.target_result import TargetResult
from edgeft.recipe.model import Recipe
from edgeft.recipe.named import HUB

if TYPE_CHECKING:
    from edgeft.bundle.sign import SigningKey

_ARM_NUMBERS = ("median_ms", "p50", "p90", "p99", "load_ms", "first_ms", "peak_rss_bytes", "samples")


def assemble(
    record: RunRecord,
    result: TargetResult,
    recipe: Recipe,
    images: Path | None,
    out: Path,
    key: "SigningKey | None",
) -> None:
    """Write the bundle of `record` to `out`.

    Args:
        record: the run.
        result: what came out for its target.
        recipe: what was built.
        images: root of the raw images; None of texts.
        out: the bundle's folder.
        key: that signs it; None leaves it unsigned.

    Raises:
        EdgeftError: a part cannot be read or does not fit.
    """
    from edgeft.bundle.licenses import license_of
    from edgeft.bundle.pack import Parts, pack
    from edgeft.report.card import model_card
    from edgeft.report.html import render

    target, entries = result.target, result.entries
    report = record.to_json()
    parts = Parts(
        name=recipe.name if target == recipe.lower.targets[0] else f"{recipe.name}-{target}",
        target=target,
        precision=_chosen(record)["precision"],
        model=result.model,
        more=result.more,
        data=entries["data"].folder,
        images=images,
        decision=json.loads((entries["decide"].folder / DECISION).read_bytes())[SHIPPED],
        gates=[gate for gate in record.gates if not _is_timing(gate)],
        measurements=_measurements(record),
        licenses=[license_of(what, source) for what, source in _origins(recipe, record.student)],
        report_html=render(report, entries["verify"].folder),
        report_json=report,
        model_card=model_card(report),
        run=_run(record, report),
    )
    pack(out, parts, key)


def _origins(recipe: Recipe, student: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return what the model was made from and where that came from, as the recipe names it; each place once."""
    from edgeft.bundle.licenses import DATA, STUDENT, UNLABELLED, WEIGHTS

    model, named = recipe.model, student or {}
    written = (
        (DATA, recipe.data.values["source"], None),
        (UNLABELLED, recipe.data.values.get("unlabelled"), None),
        (WEIGHTS, getattr(model, "weights", None), getattr(model, "base", None)),
        (STUDENT, named.get("weights"), named.get("base")),
    )
    found: dict[str, str] = {}
    for what, source, base in written:
        if source:
            found.setdefault(f"{source} ({base})" if source == HUB else str(source), what)
    return [(what, source) for source, what in found.items()]


def _chosen(record: RunRecord) -> dict[str, Any]:
    name = record.choice["chosen"]
    return next(item for item in record.candidates["candidates"] if item["name"] == name)


def _is_timing(gate: Gate) -> bool:
    return gate.exit_code == LATENCY_EXIT


def _measurements(record: RunRecord) -> dict[str, Json]:
    """Return the numbers that an equal build repeats bit for bit."""
    chosen = _chosen(record)
    block = record.verify.get("metrics", {}).get(chosen["name"], {})
    kept = (
        "n",
        "accuracy",
        "accuracy_interval",
        "balanced_accuracy",
        "balanced_accuracy_interval",
        "auroc",
        "inspection",
    )
    return {
        "size_bytes": chosen.get("size_bytes"),
        "unsafe_pairs": chosen.get("unsafe_pairs"),
        "test": {name: block[name] for name in kept if name in block},
        "drop": record.verify.get("drop"),
    }


def _run(record: RunRecord, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs between two equal builds."""
    compared = record.latency
    latency = compared and {
        **{name: compared[name] for name in ("ratio", "interval", "noise_floor", "rounds", "threads", "verdict")},
        **{arm: {name: compared[arm][name] for name in _ARM_NUMBERS} for arm in ("base", "new")},
    }
    return {
        "run": record.run,
        "status": record.status,
        "started": record.started,
        "seconds": record.seconds,
        "gates": [gate for gate in report["gates"] if gate["exit_code"] == LATENCY_EXIT],
        "latency": latency,
        "machine": dict(record.machine),
        "versions": dict(record.versions),
    }

"""The verify stage: what the artifact is worth on the test split, hop by hop. The only stage that reads that split.

Deterministic, so it is cached; latency is measured elsewhere, anew each time.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeft import catalog
from edgeft.core.atomic import write_atomic
from edgeft.core.record import Gate, Verdict
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.pipeline.stage_configs import VerifyConfig

if TYPE_CHECKING:
    from edgeft.pipeline.verification.outcomes import Outcomes

__all__ = ["VerifyConfig", "run"]

FP32 = "fp32"
_ATTRIBUTED = 32
"""Test images on which layers are compared."""
_SAVED = (
    "torch_logits",
    "fp32_logits",
    "fp32_scores",
    "chosen_logits",
    "chosen_scores",
    "runtime_scores",
    "raw_scores",
)


def run(ctx: Context, inputs: Inputs, config: VerifyConfig) -> StageResult:
    """Verify `inputs["lower"]` against `inputs["compress"]`, `inputs["graph"]` and `inputs["checkpoint"]`.

    Reads the test rows of `inputs["data"]` and their raw files below `inputs["images"]`, which texts do without.

    Raises:
        DataError: a raw file is missing, damaged or changed; the split is empty or lacks a class.
        IntegrityError: a step has another class order than the data.
    """
    from edgeft.pipeline.verification import metrics
    from edgeft.pipeline.verification.distillation import beside_teacher, teacher_gate
    from edgeft.pipeline.verification.flips import flips, write_thumbnails
    from edgeft.pipeline.verification.outcomes import collect, hops_of
    from edgeft.pipeline.verification.rates import inspection_gates

    outcomes = collect(ctx, inputs, config)
    hops = hops_of(outcomes)
    drop, accuracy = _drop(ctx, outcomes, config)
    blocks = {
        name: metrics.block(
            outcomes.split.labels,
            scores,
            outcomes.split.data.classes,
            ctx.seed_for(f"bootstrap {name}"),
            config.resamples,
            positive=outcomes.split.data.positive_index,
            ok=_index(outcomes.split.data.classes, outcomes.split.data.ok_class),
            rule=rule,
            slices=outcomes.split.slices(),
        )
        for name, (scores, rule) in outcomes.decided_by().items()
    }
    changed = flips(outcomes, config.thumbnails)
    write_thumbnails(ctx.folder, outcomes.split, changed)
    distilled = beside_teacher(ctx, inputs, outcomes, config)
    if distilled is not None:
        write_thumbnails(ctx.folder, outcomes.split, distilled["disagreements"])
    taught = None if distilled is None else teacher_gate(distilled["drop"], distilled["n"])
    gates = [*(gate for hop in hops if (gate := hop.gate()) is not None), accuracy, *([taught] if taught else [])]
    gates += inspection_gates(blocks[outcomes.chosen], config)
    found: dict[str, Any] = {
        "schema": 1,
        "n": len(outcomes.split.rows),
        "chosen": outcomes.chosen,
        "hops": [hop.to_json() for hop in hops],
        "metrics": blocks,
        "decision": _decision(inputs["decide"], outcomes),
        "drop": drop,
        "flips": changed,
        "distillation": distilled,
        "attribution": _attribution(ctx, inputs, outcomes),
        "gates": [asdict(gate) for gate in gates],
    }
    write_atomic(ctx.folder / "verify.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    _write_predictions(ctx.folder / "predictions.npz", outcomes)
    return StageResult(ctx.folder, _measurements(found), tuple(_notes(gates)))


def _attribution(ctx: Context, inputs: Inputs, outcomes: "Outcomes") -> dict[str, Any] | None:
    """Return what each layer adds to the error between the float graph and what ships; None where floats ship.

    A layer in float16 cannot be fed with the float graph's tensors.
    """
    if outcomes.precision in {FP32, "fp16"}:
        return None
    candidates = inputs["compress"] / "candidates"
    base, new = (candidates / name / "model.onnx" for name in (FP32, outcomes.chosen))
    rows = outcomes.split.first(_ATTRIBUTED)
    found: dict[str, Any] = catalog.resolve("edgeft.parity.told:attribute")(base, new, rows, ctx.threads, emit=ctx.emit)
    return found


def _decision(folder: Path, outcomes: "Outcomes") -> dict[str, Any]:
    """Return how what ships decides, and what other thresholds would give where a class is that of good parts."""
    from edgeft.pipeline.verification.rates import operating_points

    classes, ok = tuple(outcomes.split.data.classes), outcomes.split.data.ok_class
    points = None
    if ok is not None:
        points = operating_points(folder, outcomes.split.labels, outcomes.raw_scores, classes.index(ok))
    return {**outcomes.rule.to_json(classes), "operating_points": points}


def _index(classes: tuple[str, ...], name: str | None) -> int | None:
    return None if name is None else classes.index(name)


def _drop(ctx: Context, outcomes: "Outcomes", config: VerifyConfig) -> tuple[dict[str, Any], Gate]:
    """Return the drop from fp32 to what ships, and the accuracy gate."""
    from edgeft.pipeline.verification.hops import ACCURACY_EXIT
    from edgeft.verify.paired import judge_drop

    labels, k = outcomes.split.labels, len(outcomes.split.data.classes)
    base, new, limit = outcomes.fp32_scores, outcomes.raw_scores, config.max_drop_pp
    seed, n = ctx.seed_for("paired bootstrap"), len(labels)
    rules = (outcomes.fp32_rule, outcomes.rule)
    judged = judge_drop(config.metric, labels, base, new, k, seed, limit, n_resamples=config.resamples, rules=rules)
    found, changed, verdict, method = judged.found, judged.changed, judged.verdict, judged.method
    if outcomes.chosen == FP32 and changed == 0:
        verdict, method = Verdict.PASS, "the float graph itself ships: nothing was compressed"
    interval = (found.low_pp, found.high_pp)
    detail = _accuracy_detail(verdict, config, changed, f"{n} {'texts' if outcomes.split.data.is_text else 'images'}")
    gate = Gate("accuracy", verdict, found.value_pp, interval, limit, "pp", n, detail, ACCURACY_EXIT)
    drop = {
        "metric": config.metric,
        "value_pp": found.value_pp,
        "interval_pp": list(interval),
        "margin_pp": limit,
        "verdict": verdict,
        "n": n,
        "changed": changed,
        "changed_bound_pp": judged.bound_pp,
        "method": method,
    }
    return drop, gate


def _accuracy_detail(verdict: Verdict, config: VerifyConfig, changed: int, rows: str) -> str:
    from edgeft.verify.power import certifiable_margin_pp, images_needed

    n = int(rows.partition(" ")[0])
    said = f"drop of {config.metric} from fp32 on the test split; {changed} of {n} decisions changed"
    if verdict is not Verdict.INCONCLUSIVE:
        return said
    discordance = max(changed, 1) / n
    return (
        f"{said}; {rows} certify {certifiable_margin_pp(n, discordance):.1f} pp at this rate, "
        f"{images_needed(config.max_drop_pp, discordance)} would certify {config.max_drop_pp:g} pp"
    )


def _measurements(found: dict[str, Any]) -> dict[str, Json]:
    metric = found["drop"]["metric"]
    values: dict[str, Json] = {f"{name}_{metric}": block[metric] for name, block in found["metrics"].items()}
    return {**values, "drop_pp": found["drop"]["value_pp"], "flips": len(found["flips"]), "n": found["n"]}


def _notes(gates: list[Gate]) -> list[str]:
    return [f"{gate.name}: {gate.verdict}; {gate.detail}" for gate in gates if gate.verdict is not Verdict.PASS]


def _write_predictions(path: Path, outcomes: "Outcomes") -> None:
    import io

    import numpy as np

    arrays: dict[str, Any] = {name: getattr(outcomes, name) for name in _SAVED}
    buffer = io.BytesIO()
    np.savez(buffer, index=outcomes.split.rows, label=outcomes.split.labels, **arrays)
    write_atomic(path, buffer.getvalue())

"""A student beside its teacher, and beside what it would be without one: on the test split, row by row."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeft.core.record import Gate, Verdict
from edgeft.core.stage import Context, Inputs
from edgeft.pipeline.gates import ACCURACY_EXIT
from edgeft.pipeline.stage_configs import VerifyConfig
from edgeft.pipeline.verification.flips import Decided, changed
from edgeft.pipeline.verification.held_out import Floats, HeldOut, require_classes, torch_logits
from edgeft.pipeline.verification.outcomes import FP32, Outcomes
from edgeft.verify.accuracy import metric_value
from edgeft.verify.intervals import metric_interval
from edgeft.verify.paired import judge_drop

FOLDER = "disagreements"
"""Of the pictures of what student and teacher decide otherwise."""
_WEIGHTS, _META = "model.safetensors", "model.json"


def beside_teacher(ctx: Context, inputs: Inputs, outcomes: Outcomes, config: VerifyConfig) -> dict[str, Any] | None:
    """Return teacher, student and baselines with their metrics and sizes, and where the first two disagree.

    Every one decides for the class with the highest score: a threshold, where what ships has one, is no other's.

    Args:
        ctx: seeds and threads.
        inputs: "teacher", "teacher-2", ...; "teacher_data" where they read images at another size.
        outcomes: of the student.
        config: metric, and how many pictures.

    Returns:
        JSON values; None where nothing was distilled.
    """
    folders = [inputs[name] for name in sorted(inputs, key=_number) if name.split("-")[0] == "teacher"]
    if not folders:
        return None
    split = HeldOut.open(inputs["teacher_data"]) if "teacher_data" in inputs else outcomes.split
    order = _matched(split, outcomes.split)
    for folder in folders:
        require_classes(split, folder / _META)
    said = [torch_logits(split, folder, ctx.threads, ctx.emit)[order] for folder in folders]
    mean = np.mean([_softmax(each) for each in said], axis=0)
    teacher = np.log(np.maximum(mean, np.finfo(np.float32).tiny)).astype(np.float32)
    arms = {"teacher": (teacher, [folder / _WEIGHTS for folder in folders])}
    student = inputs["checkpoint"]
    for place in sorted(path.parent for path in student.glob(f"*/{_META}")):
        arms[place.name] = (_softmax(torch_logits(outcomes.split, place, ctx.threads, ctx.emit)), [place / _WEIGHTS])
    arms["student"] = (_softmax(outcomes.torch_logits), [student / _WEIGHTS])
    told = {name: _arm(ctx, config, outcomes.split, scores, files) for name, (scores, files) in arms.items()}
    ship, scores = outcomes.chosen, outcomes.raw_scores
    if ship != FP32:
        model = inputs["compress"] / "candidates" / ship / "model.onnx"
        told[ship] = _arm(ctx, config, outcomes.split, scores, [model])
    else:
        told["student"]["ships"] = True
    before = Decided("teacher", teacher.argmax(1), _softmax(teacher))
    after = Decided("student", scores.argmax(1), scores)
    found = changed(outcomes.split, before, after, config.thumbnails, FOLDER)
    return {
        "metric": config.metric,
        "n": len(outcomes.split.rows),
        "teachers": len(folders),
        "arms": told,
        "drop": _drop(ctx, config, outcomes, before.scores, scores),
        "agreement": 1 - len(found) / len(outcomes.split.rows),
        "disagreements": found,
    }


def teacher_gate(drop: Mapping[str, Any], n: int) -> Gate | None:
    """Return the gate on the drop from the teacher, or None where the recipe sets no margin."""
    if drop["margin_pp"] is None:
        return None
    detail = f"drop of {drop['metric']} from the teacher to what ships; {drop['changed']} of {n} decisions changed"
    interval = (drop["interval_pp"][0], drop["interval_pp"][1])
    verdict = Verdict(drop["verdict"])
    return Gate(
        "accuracy vs teacher", verdict, drop["value_pp"], interval, drop["margin_pp"], "pp", n, detail, ACCURACY_EXIT
    )


def _drop(ctx: Context, config: VerifyConfig, outcomes: Outcomes, teacher: Floats, ships: Floats) -> dict[str, Any]:
    """Return the paired drop from the teacher to what ships, and whether it is within the margin where there is one."""
    labels, k, limit = outcomes.split.labels, len(outcomes.split.data.classes), config.max_drop_from_teacher_pp
    seed = ctx.seed_for("paired bootstrap of the teacher")
    judged = judge_drop(config.metric, labels, teacher, ships, k, seed, limit or math.inf, n_resamples=config.resamples)
    return {
        "metric": config.metric,
        "value_pp": judged.found.value_pp,
        "interval_pp": [judged.found.low_pp, judged.found.high_pp],
        "margin_pp": limit,
        "verdict": None if limit is None else judged.verdict,
        "changed": judged.changed,
        "method": judged.method,
    }


def _number(name: str) -> tuple[str, int]:
    kind, _, number = name.partition("-")
    return kind, int(number) if number.isdigit() else 1


def _arm(ctx: Context, config: VerifyConfig, split: HeldOut, scores: Floats, files: Sequence[Path]) -> dict[str, Any]:
    k = len(split.data.classes)
    interval = metric_interval(
        config.metric, split.labels, scores, k, ctx.seed_for("bootstrap students"), n_resamples=config.resamples
    )
    return {
        "value": metric_value(config.metric, split.labels, scores, k),
        "interval": list(interval),
        "size_bytes": sum(file.stat().st_size for file in files),
    }


def _matched(teachers: HeldOut, students: HeldOut) -> Any:  # noqa: ANN401 - int64 [n]
    """Return the place among the teacher's test rows of each of the student's."""
    places = {teachers.data.rows[row].path: place for place, row in enumerate(teachers.rows)}
    return np.array([places[students.data.rows[row].path] for row in students.rows], dtype=np.int64)


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


def timed_beside_teacher(compared: Mapping[str, Any], teachers: int) -> dict[str, Any]:
    """Return what the record keeps of the student's timing beside its teacher's float graph.

    Args:
        compared: the comparison of one teacher with what ships.
        teachers: how many answer together: each takes as long as the one that was timed.
    """
    names = ("ratio", "interval", "rounds", "noise_floor", "threads")
    kept = {name: compared[name] for name in names}
    kept |= {arm: {"median_ms": compared[arm]["median_ms"]} for arm in ("base", "new")}
    low, high = compared["interval"]
    faster = {"value": teachers / compared["ratio"], "interval": [teachers / high, teachers / low]}
    plain: dict[str, Any] = json.loads(json.dumps({**kept, "teachers": teachers, "times_as_fast": faster}))
    return plain

"""The method `logits`: a student learns from its teacher's softened logits and from the labels."""

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.data.dataset import Dataset
from edgeft.distill.config import LogitsConfig
from edgeft.distill.losses import soft_targets
from edgeft.distill.students import create_student, model_of
from edgeft.distill.teacher import TaughtFeed
from edgeft.finetune import evaluate
from edgeft.finetune.loop import Guidance, Phase
from edgeft.finetune.session import finish, session
from edgeft.models.checkpoint import load
from edgeft.models.sources import Created

_SURE = 0.05
"""Largest p of McNemar's exact test at which the student counts as better than its teacher."""


def run(ctx: Context, inputs: Inputs, config: LogitsConfig) -> StageResult:
    """Teach a student and write its checkpoint folder.

    Args:
        ctx: where to write.
        inputs: "data"; "checkpoint", the teacher's; "student", the file that `config.student.weights` names.
        config: the `distill:` block.

    Raises:
        DataError: the data folder, the teacher or the weights cannot be used.
        UsageError: the student cannot be made, or training diverged.
    """
    teacher, meta = load(inputs["checkpoint"])
    model = model_of(config.student, config.model)
    settings = config.model_copy(update={"model": model})

    def make(data: Dataset) -> Created:
        del data
        return create_student(config.student, model, teacher, meta, inputs.get("student"), ctx.seed_for("student"))

    with session(ctx, inputs, settings, make) as opened:
        feed = TaughtFeed(opened, teacher.to(opened.accelerate.device).eval(), config.views)
        guidance = Guidance(
            feed.answers, lambda logits, answers: soft_targets(logits, answers, config.temperature), config.alpha
        )
        phases = [Phase(0, config.epochs, boundary=0)]
        fit = opened.loop().run(phases, lambda _: feed, guidance)
        result = finish(opened, fit, phases)
        rows, labels = opened.data.indices("val"), opened.data.labels
        told, said = feed.validation(), evaluate.logits(opened.module.eval(), feed.evaluate, rows)
        own, size = (sum(each.numel() for each in module.parameters()) for module in (opened.module, teacher))
    right, agreed = told.argmax(1) == labels[rows], told.argmax(1) == said.argmax(1)
    found: dict[str, Json] = {
        "teacher_parameters": size,
        "teacher_val_accuracy": float(right.mean()),
        "val_agreement": float(agreed.mean()),
    }
    notes = _findings(own, size, said.argmax(1) == labels[rows], right)
    timings = {**result.timings, "teacher_rows": feed.asked}
    return StageResult(result.folder, {**result.measurements, **found}, (*result.notes, *notes), timings)


def _findings(own: int, size: int, right: npt.NDArray[np.bool_], teacher_right: npt.NDArray[np.bool_]) -> list[str]:
    """Return what a reader must know of student and teacher: their sizes, and on which rows each is right."""
    notes = []
    if own >= size:
        notes.append(f"student: {own:,} parameters, no fewer than its teacher's {size:,}: nothing is saved")
    better, worse = int((right & ~teacher_right).sum()), int((teacher_right & ~right).sum())
    if better > worse and binomtest(better, better + worse).pvalue < _SURE:
        notes.append(
            f"student: right on {right.mean():.1%} of the validation rows, its teacher on {teacher_right.mean():.1%}: "
            "the teacher holds it back, lower distill.alpha or train the teacher longer"
        )
    return notes

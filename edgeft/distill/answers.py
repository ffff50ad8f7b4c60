"""The answers stage: what the teacher says of each row that is learned from, for training of int8 to follow."""

import numpy as np

from edgeft.core.stage import Context, Inputs, StageResult
from edgeft.data.answers import Answers
from edgeft.data.dataset import Dataset
from edgeft.distill.config import AnswersConfig
from edgeft.distill.teacher import LOGITS, Teacher, Views, joined, teachers_of, teachers_views
from edgeft.finetune.cache import ActivationCache
from edgeft.finetune.environment import accelerator, training_process
from edgeft.models.checkpoint import load

_SPLIT = "studied"


def run(ctx: Context, inputs: Inputs, config: AnswersConfig) -> StageResult:
    """Write the teacher's logits for the rows of train and unlabelled, as they are, not augmented.

    Args:
        ctx: where to write.
        inputs: "data", the student's; "checkpoint" and "checkpoint-2", ... the teachers'; "teacher_data" where they
            read images at another size.
        config: on which device.

    Raises:
        DataError: the data folder or a teacher cannot be used.
        UsageError: a GPU is asked for and there is none.
    """
    with training_process(ctx.seed_for("answers"), ctx.threads):
        data, device = Dataset.open(inputs["data"]), accelerator(config.device, "fp32").device
        module = joined([load(folder)[0].to(device).eval() for folder in teachers_of(inputs)])
        given = teachers_views(inputs, data, lambda of: Views(of, (), 1, 0, device))
        teacher, rows = Teacher(module, [], given, digest=""), data.studied()
        kept = ActivationCache(
            ctx.workspace / "answers",
            {_SPLIT: rows},
            lambda _split, _view, part: teacher.answer(part, None, ())[LOGITS].float(),
            ctx.emit,
        )
        Answers(rows, np.array(kept.prepare(_SPLIT, 0))).write(ctx.folder)
        computed = kept.computed
    return StageResult(ctx.folder, {"rows": len(rows)}, (), {"teacher_rows": computed})

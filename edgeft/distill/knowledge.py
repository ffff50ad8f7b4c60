"""The method `knowledge`: a student learns from its teacher's answers, from what happens inside of it, and from labels.

teacher > student (cut out of it, or by name) > prune and heal, step by step > teach > student checkpoint
                                                                 the same without a teacher, where asked for
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import DataError, UsageError
from edgeft.core.events import Message
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.data.dataset import Dataset
from edgeft.distill.config import Baseline, CandidateConfig, KnowledgeConfig, StudentConfig, model_of
from edgeft.distill.importance import Judge
from edgeft.distill.lesson import Lesson, alone, taught
from edgeft.distill.students import Basis, create_student, cut
from edgeft.distill.teacher import Views, teachers_of
from edgeft.finetune.environment import training_process
from edgeft.models.checkpoint import META, CheckpointMeta, load, save
from edgeft.models.sources import Created

_NOTES = "notes.json"
PROPOSAL = "proposal.json"
"""What the propose stage writes where the recipe says `student: auto`."""
_BASELINES: Mapping[Baseline, str] = {
    "without_teacher": "the same student, from labels alone",
    "from_scratch": "the same student from random weights and labels alone",
}
"""What is said of each as its training begins; the names are those of their folders, too."""


def run(ctx: Context, inputs: Inputs, config: KnowledgeConfig) -> StageResult:
    """Teach a student and write its checkpoint folder.

    Args:
        ctx: where to write.
        inputs: "data", the student's; "checkpoint" and "checkpoint-2", ... the teachers'; "teacher_data" where they
            read images at another size; "student", what `config.student.weights` names, and "student-3" what the third
            candidate's does; "tokenizer", a text teacher's.
        config: the `distill:` block.

    Raises:
        DataError: the data folder, a teacher or the weights cannot be used.
        UsageError: the student cannot be made, a loss has no place in it, or training diverged.
    """
    inputs, config = _proposed(inputs, config)
    folders = teachers_of(inputs)
    loaded = [load(folder) for folder in folders]
    meta = loaded[0][1]
    for folder, (_, other) in zip(folders, loaded, strict=True):
        if other.classes != meta.classes:
            raise DataError(
                f"{folder}: classes {list(other.classes)}, the first teacher's are {list(meta.classes)}",
                hint="run `edgeft build` again: all teachers are tuned on the same data",
            )
    model = model_of(config.student, config.model)
    settings = config.model_copy(update={"model": model})
    lesson = Lesson(inputs, settings, [module for module, _ in loaded], meta)
    make = _loading(*_begun(ctx, lesson))
    result = taught(ctx, lesson, make)
    if not config.baselines:
        return result
    found: dict[str, StageResult] = {}
    for name in config.baselines:
        ctx.emit(Message(f"distill: {_BASELINES[name]}"))
        own = _below(ctx, name, ctx.folder / name)
        found[name] = alone(own, lesson, make, scratch=name == "from_scratch")
    measured: dict[str, Json] = {name: dict(each.measurements) for name, each in found.items()}
    timings: dict[str, Json] = {name: dict(each.timings) for name, each in found.items()}
    return StageResult(
        ctx.folder,
        {**result.measurements, "baselines": measured},
        result.notes,
        {**result.timings, "baselines": timings},
    )


def _proposed(inputs: Inputs, config: KnowledgeConfig) -> tuple[Inputs, KnowledgeConfig]:
    """Return inputs and settings with the student that was proposed, where the recipe leaves it open."""
    if not config.student.auto:
        return inputs, config
    found = json.loads((inputs["proposal"] / PROPOSAL).read_bytes())
    chosen, role = CandidateConfig.model_validate(found["chosen"]), f"student-{found['number']}"
    own = {"student": inputs[role]} if role in inputs else {}
    return {**inputs, **own}, config.model_copy(update={"student": chosen.student, "prune": chosen.prune})


def untrained(ctx: Context, inputs: Inputs, config: KnowledgeConfig) -> tuple[str, ...]:
    """Write the student that `run` would train, as it begins, to the context's folder; return what it is.

    Raises:
        DataError: the teacher or the weights cannot be used.
        UsageError: the student cannot be made.
    """
    module, meta = load(inputs["checkpoint"])
    model, data = model_of(config.student, config.model), Dataset.open(inputs["data"])
    lesson = Lesson(inputs, config.model_copy(update={"model": model}), [module], meta)
    return tuple(_written(ctx, ctx.folder, lesson, data, partial(_student, ctx, lesson, data)))


def _student(ctx: Context, lesson: Lesson, data: Dataset) -> Created:
    return create_student(lesson.config, lesson.config.model, _basis(ctx, lesson, data), data)


def _basis(ctx: Context, lesson: Lesson, data: Dataset, teacher: nn.Module | None = None) -> Basis:
    """Return what a student is made from; `teacher` is what was pruned of it so far."""
    config, module = lesson.config, teacher or lesson.members[0]
    reads_own = teacher is not None or "teacher_data" not in lesson.inputs  # what was healed reads a student's images
    of = data if reads_own else Dataset.open(lesson.inputs["teacher_data"])
    device = next(module.parameters()).device
    views = Views(of, (), 1, 0, device)
    seed = ctx.seed_for("importance")
    judge = Judge.of(
        lambda rows: views(rows, None),
        torch.from_numpy(of.labels),
        of.indices("train"),
        config.importance_rows,
        seed,
    )
    example = Views(data, (), 1, 0, device)(data.indices("train")[:1], None)  # what the student will read
    weights, tokenizer = lesson.inputs.get("student"), lesson.inputs.get("tokenizer")
    return Basis(module, lesson.meta, judge, example, weights, tokenizer, ctx.seed_for("student"))


def _begun(ctx: Context, lesson: Lesson) -> tuple[Path, list[str]]:
    """Make the student as it begins, once for all trainings; return its folder and what is to be said of it."""
    if lesson.config.prune_steps > 1:
        return _pruned(ctx, lesson)
    data, folder = Dataset.open(lesson.inputs["data"]), ctx.workspace / "begun"
    return folder, _written(ctx, folder, lesson, data, partial(_student, ctx, lesson, data))


def _written(ctx: Context, folder: Path, lesson: Lesson, data: Dataset, make: Callable[[], Created]) -> list[str]:
    """Write what `make` makes to `folder`, unless it is there; return what is to be said of it."""
    if not (folder / META).is_file():
        with training_process(ctx.seed_for("student"), ctx.threads):
            created = make()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / _NOTES, json.dumps(created.notes))
        meta = CheckpointMeta.of(created.module, lesson.config.model, data.classes, data.contract)
        save(folder, created.module, meta)
    notes: list[str] = json.loads((folder / _NOTES).read_bytes())
    return notes


def _pruned(ctx: Context, lesson: Lesson) -> tuple[Path, list[str]]:
    """Prune step by step with healing in between; return the folder of the last step's student, not healed yet."""
    config, notes = lesson.config, []
    data = Dataset.open(lesson.inputs["data"])
    healing = replace(
        lesson, config=config.model_copy(update={"epochs": config.heal_epochs, "early_stop": None, "prune_steps": 1})
    )
    share = 1 - (1 - (config.prune or 0.0)) ** (1 / config.prune_steps)
    begun = healed = ctx.workspace
    for number in range(1, config.prune_steps + 1):
        place = ctx.workspace / f"prune-{number}"
        student, whole = (config.student, None) if number == 1 else (StudentConfig(), load(healed)[0])
        begun, healed = place / "student", place / "healed"

        def less(whole: nn.Module | None = whole, student: StudentConfig = student) -> Created:
            return cut(_basis(ctx, lesson, data, whole), student, share)

        try:
            told = _written(ctx, begun, lesson, data, less)
        except UsageError as error:
            raise UsageError(
                f"step {number} of {config.prune_steps}: {error.message}",
                hint="lower distill.prune, of which each step takes a part",
            ) from error
        notes += [f"step {number}: {note}" for note in told]
        if number < config.prune_steps and not (healed / META).is_file():
            ctx.emit(Message(f"distill: step {number} of {config.prune_steps}, healing"))
            shutil.rmtree(healed, ignore_errors=True)
            taught(_below(ctx, f"prune-{number}", place / "out"), healing, _loading(begun))
            (place / "out").rename(healed)
    return begun, notes


def _loading(folder: Path, notes: Sequence[str] = ()) -> Callable[[Dataset], Created]:
    return lambda _: Created(load(folder)[0], tuple(notes))


def _below(ctx: Context, name: str, folder: Path) -> Context:
    """Return a context of its own for one of several trainings."""
    work = ctx.workspace / name / "work"
    for place in (folder, work):
        place.mkdir(parents=True, exist_ok=True)
    return replace(ctx, folder=folder, workspace=work)

"""One training of a student: by its teacher, or alone on the very same rows and views."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from edgeft.core.digest import sha256_json, sha256_tree
from edgeft.core.errors import UsageError
from edgeft.core.keys import versions
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.data.dataset import Dataset
from edgeft.distill import losses
from edgeft.distill.channels import multiply_adds
from edgeft.distill.config import KnowledgeConfig, StudentConfig
from edgeft.distill.hints import Hint, Side, hints
from edgeft.distill.students import reset_
from edgeft.distill.taps import watching
from edgeft.distill.teacher import LOGITS, TaughtFeed, Teacher, ViewFeed, Views, joined, teachers_of, teachers_views
from edgeft.finetune import evaluate
from edgeft.finetune.feeds import Input
from edgeft.finetune.loop import Fit, Guidance, Phase
from edgeft.finetune.session import Session, finish, session
from edgeft.models.checkpoint import CheckpointMeta
from edgeft.models.sources import Created
from edgeft.models.stages import Groups, depth_groups

_SURE = 0.05
"""Largest p of McNemar's exact test at which the student counts as better than its teacher."""
_PROJECTIONS = "distill_projections"
"""Name of the learned projections in the student while it trains."""
_LIBRARIES = ("numpy", "timm", "torch", "torchvision", "transformers")
"""Whose versions change the last bits of an answer."""
_SCHEMA = 2
"""Of stored answers: goes up where what a view of a row is changes (augmentation, draws)."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What every training of a run shares.

    Args:
        inputs: folders by role.
        config: the settings, with the student's model block.
        members: the teachers, in eval mode on the CPU.
        meta: what the first of them is.
    """

    inputs: Inputs
    config: KnowledgeConfig
    members: Sequence[nn.Module]
    meta: CheckpointMeta


class _Carrying(nn.Module):
    """A depth group that owns the projections, too, and runs without them."""

    def __init__(self, group: nn.Module, carried: nn.Module) -> None:
        super().__init__()
        self.group, self.carried = group, carried

    def forward(self, x: Input) -> Input:
        """Return what the group does."""
        found: Input = self.group(x)
        return found


def taught(ctx: Context, lesson: Lesson, make: Callable[[Dataset], Created]) -> StageResult:
    """Train the student that `make` makes by its teacher, and write it to the context's folder.

    Raises:
        UsageError: a loss has no place in student or teacher, or training diverged.
    """
    config = lesson.config
    with session(ctx, lesson.inputs, config, make) as opened, ExitStack() as watch:
        data, device = opened.data, opened.accelerate.device
        if len(data.indices("unlabelled")) and (config.sampling == "balanced" or data.mix is not None):
            raise UsageError(
                "data.unlabelled: rows without a label have no class to balance and no domain to mix",
                hint="distill.sampling: shuffle, and no data.mix",
            )
        views = _views(ctx, config, data, device)
        teacher, found = _teacher(ctx, lesson, opened, views)
        feed = TaughtFeed(ctx, data, views, teacher, device, by_row=config.by_row)
        seen = watch.enter_context(watching([spot for hint in found.values() for spot in hint.own]))
        carried = nn.ModuleDict({name: hint.projection for name, hint in found.items() if len(hint.projection)})
        training = _carrying(opened, carried.to(device)) if len(carried) else opened
        guidance = Guidance(feed.answers, _loss(config, found, seen), 1 - config.alpha)
        phases = [Phase(0, config.epochs, boundary=0)]
        fit = _bare(training.loop().run(phases, lambda _: feed, guidance))
        if len(carried):
            delattr(opened.module, _PROJECTIONS)
        result = finish(opened, fit, phases)
        rows = data.indices("val")
        said = evaluate.logits(opened.module.eval(), feed.evaluate, data, rows)
        told, labels = feed.validation().argmax(1), data.labels[rows]
        student = _size(opened.module, views(rows[:1], None))
        first = _size(lesson.members[0], teacher.inputs(rows[:1], None))
    measured: dict[str, Json] = {
        "teacher_parameters": sum(map(_parameters, lesson.members)),
        "teacher_val_accuracy": float((told == labels).mean()),
        "val_agreement": float((told == said.argmax(1)).mean()),
        "unlabelled": len(data.indices("unlabelled")),
        "multiply_adds": student["multiply-adds"],
        "teacher_multiply_adds": first["multiply-adds"],
    }
    notes = [*_findings(said.argmax(1) == labels, told == labels), *_larger(student, first)]
    timings = {**result.timings, "teacher_rows": feed.asked}
    return StageResult(result.folder, {**result.measurements, **measured}, (*result.notes, *notes), timings)


def alone(ctx: Context, lesson: Lesson, make: Callable[[Dataset], Created], *, scratch: bool) -> StageResult:
    """Train the student without a teacher, and write it to the context's folder."""

    def begun(data: Dataset) -> Created:
        created = make(data)
        if scratch:
            reset_(created.module, lesson.config.model, data.classes, ctx.seed_for("scratch"))
        return created

    with session(ctx, lesson.inputs, lesson.config, begun) as opened:
        config = lesson.config
        views = _views(ctx, config, opened.data, opened.accelerate.device)
        phases = [Phase(0, config.epochs, boundary=0)]
        return finish(opened, opened.loop().run(phases, lambda _: ViewFeed(views)), phases)


def _views(ctx: Context, config: KnowledgeConfig, data: Dataset, device: torch.device) -> Views:
    return Views(data, config.augment, config.views, ctx.seed_for("views"), device)


def _teacher(ctx: Context, lesson: Lesson, opened: Session, views: Views) -> tuple[Teacher, dict[str, Hint]]:
    """Return who teaches, and where to look in both."""
    config, device, data = lesson.config, opened.accelerate.device, opened.data
    members = [member.to(device).eval() for member in lesson.members]
    module = joined(members)
    inputs = teachers_views(lesson.inputs, data, lambda of: views if of is data else _views(ctx, config, of, device))
    digest = sha256_json(
        {
            "weights": [sha256_tree(folder) for folder in teachers_of(lesson.inputs)],
            "data": [sha256_tree(lesson.inputs[name]) for name in ("data", "teacher_data") if name in lesson.inputs],
            "augment": config.model_dump(mode="json")["augment"],
            "device": device.type,
            "threads": ctx.threads,
            "versions": dict(versions(_LIBRARIES)),
            "schema": _SCHEMA,
        }
    )
    if not config.hints:
        return Teacher(module, [], inputs, digest), {}
    inside = set(config.hints) & {"hidden", "attention", "self_relations"}
    if inside and data.is_text and any(insert.kind == "prompt" for insert in lesson.meta.inserts):
        raise UsageError(
            f"distill.{min(inside)}: the teacher's prompts stand among its texts' tokens, and the student has none",
            hint="use features: 1.0, or another finetune.method",
        )
    row = data.indices("val")[:1]
    sides = [
        Side(each, groups, given(row, None), *_shape(each, contract))
        for each, groups, given, contract in (
            (opened.module, opened.groups, views, data.contract),
            (module, depth_groups(module), inputs, lesson.meta.input),
        )
    ]
    found = hints(config, sides[0], sides[1], _mapped(config.student, sides[0].groups, sides[1].groups))
    kept = {spot.name: spot for hint in found.values() if not hint.live for spot in hint.told}
    live = {spot.name: spot for hint in found.values() if hint.live for spot in hint.told}
    return Teacher(module, sides[1].groups, inputs, digest, list(kept.values()), list(live.values())), found


def _shape(module: nn.Module, contract: Any) -> tuple[int | None, int]:  # noqa: ANN401 - an image's or a text's
    """Return the rows of an image, None of texts; and the heads of a text encoder's attention, 1 of images."""
    height = getattr(contract, "height", None)
    config = getattr(getattr(module, "encoder", None), "config", None)
    return height, int(getattr(config, "num_attention_heads", 1))


def _mapped(student: StudentConfig, own: Groups, teachers: Groups) -> list[int]:
    """Return the teacher's layer for each of a text student's: those that the recipe names, else evenly spread ones."""
    from edgeft.distill.encoders import spread

    ours, theirs = (sum(name.startswith("layer.") for name, _ in each) for each in (own, teachers))
    if isinstance(student.layers, tuple):
        return list(student.layers)
    return spread(theirs, ours) if ours else []


def _carrying(opened: Session, carried: nn.Module) -> Session:
    """Return the session with the projections in the student and in its topmost group, so that they are trained."""
    opened.module.add_module(_PROJECTIONS, carried)
    name, head = opened.groups[-1]
    return replace(opened, groups=[*opened.groups[:-1], (name, _Carrying(head, carried))])


def _bare(fit: Fit) -> Fit:
    """Return the best weights without the projections."""
    return replace(fit, best={name: each for name, each in fit.best.items() if not name.startswith(_PROJECTIONS)})


def _loss(
    config: KnowledgeConfig, found: Mapping[str, Hint], seen: Mapping[str, Tensor]
) -> Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]:
    def loss(logits: Tensor, labels: Tensor, told: Mapping[str, Tensor]) -> Tensor:
        if config.objective == "soft_targets":
            total = losses.soft_targets(logits, told[LOGITS], config.temperature)
        else:
            known = torch.where(labels >= 0, labels, told[LOGITS].argmax(1))
            total = losses.decoupled(logits, told[LOGITS], known, config.temperature, config.other_classes)
        total = config.alpha * total
        wide = {name: each.float() if each.is_floating_point() else each for name, each in seen.items()}
        for hint in found.values():  # outside of autocast, which left what the student shows in half precision
            total = total + hint.weight * hint.loss(wide, told)
        return total

    return loss


def _parameters(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


def _size(network: nn.Module, x: Input) -> dict[str, int]:
    """Return how large a network is, and how much it computes for one input `x`."""
    return {"parameters": _parameters(network), "multiply-adds": multiply_adds(network, x)}


def _larger(student: Mapping[str, int], teacher: Mapping[str, int]) -> list[str]:
    """Return in what the student is no smaller than its first teacher; a network is smaller on smaller images."""
    same = student["multiply-adds"] < teacher["multiply-adds"] and student["parameters"] == teacher["parameters"]
    more = [
        f"{count:,} {what}, no fewer than its teacher's {teacher[what]:,}"
        for what, count in student.items()
        if count >= teacher[what] and not same
    ]
    return [f"student: {'; '.join(more)}"] if more else []


def _findings(right: npt.NDArray[np.bool_], teacher_right: npt.NDArray[np.bool_]) -> list[str]:
    """Return what a reader must know of the rows on which student and teacher are right."""
    notes = []
    better, worse = int((right & ~teacher_right).sum()), int((teacher_right & ~right).sum())
    if better > worse and binomtest(better, better + worse).pvalue < _SURE:
        notes.append(
            f"student: right on {right.mean():.1%} of the validation rows, its teacher on {teacher_right.mean():.1%}: "
            "the teacher holds it back, lower distill.alpha or train the teacher longer"
        )
    return notes

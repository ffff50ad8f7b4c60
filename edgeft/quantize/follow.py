"""Train a graph to do what a float graph does: no labels, the teacher's own tensors.

    loss = d(first) / 2 + mean over the others of d(t) / 2,        d(t) = mean((t - t_teacher)^2) / var(t_teacher)

`first` is the output that counts, and may follow other answers than the float graph's; the others lie between the
graph's segments, so that a gradient need not come all the way from the output. Every parameter group's rate falls to 0
along a cosine.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgeft.core.events import EventSink, Progress, ignore
from edgeft.graph.module import GraphModule
from edgeft.quantize.affine import Floats, QuantizationError
from edgeft.quantize.rows import Images


@dataclass(frozen=True, slots=True)
class Lessons:
    """How long the teacher is followed, and on what.

    Args:
        images: what to train on, in the type that the graphs take.
        rng: draws the batches.
        steps: optimizer steps.
        batch: images of a step.
        tensors: what follows the teacher's: the output first, then inner tensors of the same name in both.
        answers: what the output follows in place of the teacher's, logits float32 [N, K] of `images`; None: its own.
        threads: CPU threads.
    """

    images: Images
    rng: np.random.Generator
    steps: int
    batch: int
    tensors: tuple[str, ...]
    answers: Floats | None = None
    threads: int = 1


def follow(
    student: GraphModule,
    teacher: GraphModule,
    optimizer: torch.optim.Optimizer,
    lessons: Lessons,
    *,
    after: Callable[[], None] = lambda: None,
    emit: EventSink = ignore,
    task: str = "train",
) -> tuple[float, ...]:
    """Train `student` and return the loss of each step's batch, before the step.

    Args:
        student: what is trained.
        teacher: the float graph; nothing of it moves.
        optimizer: of the student's parameters.
        lessons: how long, and on what.
        after: called after each step.
        emit: where progress goes.
        task: what progress calls it.

    Raises:
        QuantizationError: there are no images, or the loss is not finite; says at which step.
    """
    images, rng = lessons.images, lessons.rng
    if not len(images):
        raise QuantizationError("training needs images, found none")
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / lessons.steps))
    )
    losses: list[float] = []
    with _torch_threads(lessons.threads):
        for step in range(lessons.steps):
            chosen = np.sort(rng.choice(len(images), min(lessons.batch, len(images)), replace=False))
            feeds = {teacher.inputs[0]: torch.from_numpy(np.ascontiguousarray(images[chosen]))}
            with torch.no_grad():
                wanted = teacher(feeds, lessons.tensors)
                if lessons.answers is not None:
                    output = lessons.tensors[0]
                    wanted = {**wanted, output: _level(torch.from_numpy(lessons.answers[chosen]), wanted[output])}
            loss = distance(student(feeds, lessons.tensors), wanted, lessons.tensors)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise QuantizationError(f"the loss of step {step} is {losses[-1]}", hint="lower the rate of training")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch does not type it
            optimizer.step()
            schedule.step()
            after()
            emit(Progress(task, step + 1, lessons.steps, f"loss {losses[-1]:.3g}"))
    return tuple(losses)


def distance(found: dict[str, Tensor], wanted: dict[str, Tensor], names: Sequence[str]) -> Tensor:
    """Return the squared difference relative to the variance of what is wanted: half the first, half the others."""
    parts = [(found[name] - wanted[name]).square().mean() / _spread(wanted[name]) for name in names]
    first, *others = parts
    return first if not others else (first + torch.stack(others).mean()) / 2


def _spread(wanted: Tensor) -> Tensor:
    """Return the variance of `wanted`, or what hardly varies a millionth of its mean square."""
    return wanted.var(correction=0) + 1e-6 * wanted.square().mean() + torch.finfo(torch.float32).tiny


def _level(answers: Tensor, own: Tensor) -> Tensor:
    """Return logits [n, K] with each row's mean as in `own`: it changes no probability, and teachers differ in it."""
    return answers + (own - answers).mean(1, keepdim=True)


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)

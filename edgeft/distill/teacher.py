"""What the teacher says of each training row, once per view and kept on disk, and the same views for the student."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgeft.core.digest import sha256_json
from edgeft.core.errors import DataError
from edgeft.core.stage import Context, Inputs
from edgeft.data.augment import Augmentation, build
from edgeft.data.augment_config import AugmentSpec
from edgeft.data.dataset import Dataset, Split
from edgeft.data.draws import sample_seeds
from edgeft.distill.taps import Spot, watching
from edgeft.finetune import evaluate, features
from edgeft.finetune.cache import CHUNK, ActivationCache
from edgeft.finetune.feeds import Feed, Input, TokenFeed
from edgeft.finetune.sampling import Rows
from edgeft.models.pixels import Normalizer, as_tensor
from edgeft.models.stages import Groups, chain

LOGITS = "logits"
_SPLITS: tuple[Split, ...] = ("train", "unlabelled", "val")


class Ensemble(nn.Module):
    """Several classifiers as one: log of the mean of their probabilities."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Input) -> Tensor:
        """Return logits [N, K]."""
        answers = torch.stack([torch.log_softmax(member(x), dim=1) for member in self.members])
        return torch.logsumexp(answers, dim=0) - float(np.log(len(self.members)))


class Views:
    """A network's input for rows of a dataset, in view after view.

    A view is the row itself, augmented by numbers that belong to row and view; texts, and images without augmentation,
    have one. Two networks that read the same images at other sizes see the same augmentations.

    Args:
        data: the dataset.
        augment: what changes images; empty changes nothing.
        views: of an augmented image.
        seed: of the augmentation.
        device: where the input goes.
    """

    def __init__(self, data: Dataset, augment: AugmentSpec, views: int, seed: int, device: torch.device) -> None:
        self._data, self._seed = data, seed
        self._augment: Augmentation | None = build(augment) if augment else None
        self.count = views if self._augment else 1
        self._normalize = None if data.is_text else Normalizer(data.input, device)
        self._tokens = TokenFeed(data.tokens, device) if data.is_text else None

    def __call__(self, rows: Rows, view: int | None, drawn: Rows | None = None) -> Input:
        """Return the input of dataset rows `rows` [n] in `view`; None is the row itself, never augmented.

        Augmentation is drawn by the numbers `drawn` [n]; None: by `rows`.
        """
        if self._tokens is not None:
            return self._tokens.evaluate(rows)
        images = as_tensor(self._data.pixels[rows])
        if view is not None and self._augment is not None:
            images = self._augment.at(images, sample_seeds(self._seed, view, rows if drawn is None else drawn))
        if self._normalize is None:
            raise TypeError("images without a normalizer")
        return self._normalize(images)

    def parts(self, rows: Rows) -> Sequence[Rows]:
        """Return the rows of a batch as they are computed: texts by length."""
        return [rows] if self._tokens is None else self._tokens.parts(rows)


class Matched:
    """A teacher's views by the student's rows: both datasets hold the same files, read at other sizes.

    Raises:
        DataError: a row of the student's is none of the teacher's.
    """

    def __init__(self, views: Views, own: Dataset, other: Dataset) -> None:
        places = {row.path: row.index for row in other.rows}
        missing = [row.path for row in own.rows if row.path not in places]
        if missing:
            raise DataError(
                f"{missing[0]} and {len(missing) - 1} more rows are in the student's data and not in the teacher's",
                hint="build again: both come from the same files",
            )
        self._views = views
        self._places = np.array([places[row.path] for row in own.rows], dtype=np.int64)

    def __call__(self, rows: Rows, view: int | None) -> Input:
        """Return the teacher's input of the student's rows `rows` [n]."""
        return self._views(self._places[rows], view, drawn=rows)


def teachers_of(inputs: Inputs) -> list[Path]:
    """Return the teachers' checkpoint folders: what a stage reads as "checkpoint", "checkpoint-2", ..."""
    return [inputs[name] for name in sorted(inputs) if name.startswith("checkpoint")]


def joined(members: Sequence[nn.Module]) -> nn.Module:
    """Return several teachers as one; one stays itself."""
    return members[0] if len(members) == 1 else Ensemble(members)


def teachers_views(inputs: Inputs, own: Dataset, views: Callable[[Dataset], Views]) -> Views | Matched:
    """Return the teacher's input by rows of the student's dataset `own`.

    Args:
        inputs: of the stage; with "teacher_data" where the teacher reads images at another size.
        own: the student's dataset.
        views: of a dataset.

    Raises:
        DataError: a row of the student's is none of the teacher's.
    """
    if "teacher_data" not in inputs:
        return views(own)
    other = Dataset.open(inputs["teacher_data"])
    return Matched(views(other), own, other)


@dataclass(frozen=True, slots=True)
class Teacher:
    """A fine-tuned model, or several, and what is asked of it.

    Args:
        module: in eval mode.
        groups: its depth groups, whose composition is what it computes in eval mode.
        inputs: (rows of the student's dataset, view) -> its input.
        digest: of its weights and of what it reads.
        kept: places inside of it that are kept with its logits.
        live: places that are asked anew for each batch.
    """

    module: nn.Module
    groups: Groups
    inputs: Views | Matched
    digest: str
    kept: Sequence[Spot] = ()
    live: Sequence[Spot] = ()

    def answer(self, rows: Rows, view: int | None, spots: Sequence[Spot]) -> dict[str, Tensor]:
        """Return its logits [n, K] and what `spots` show."""
        with torch.no_grad(), watching(spots) as seen:
            given = self.inputs(rows, view)
            logits: Tensor = self.module(given) if not spots else chain(self.groups).eval()(given)
            return {LOGITS: logits, **seen}


class ViewFeed(Feed):
    """A student's input, batch after batch: epoch e sees view e mod `views.count` of each row."""

    def __init__(self, views: Views) -> None:
        self._views = views

    def prepare(self, epoch: int) -> None:
        """Do nothing: rows are ready."""

    def parts(self, rows: Rows) -> Sequence[Rows]:
        """Return the rows of a batch as they are computed."""
        return self._views.parts(rows)

    def train(self, rows: Rows, epoch: int, step: int) -> Input:
        """Return the training input for dataset rows `rows` [n]."""
        del step
        return self._views(rows, epoch % self._views.count)

    def evaluate(self, rows: Rows) -> Input:
        """Return the input for dataset rows `rows` [n]; never augmented."""
        return self._views(rows, None)


class TaughtFeed(ViewFeed):
    """The student's input, batch after batch, and the teacher's answers to the very same.

    Args:
        ctx: workspace, memo and progress.
        data: the student's dataset.
        views: of the student's input.
        teacher: who answers.
        device: where the answers go.
        by_row: whether the loss is a mean over rows, so that a batch can be cut.
    """

    def __init__(
        self, ctx: Context, data: Dataset, views: Views, teacher: Teacher, device: torch.device, *, by_row: bool
    ) -> None:
        super().__init__(views)
        self._by_row = by_row
        self._data, self._teacher, self._device = data, teacher, device
        probe = teacher.answer(data.indices("val")[:1], None, teacher.kept)
        self._shapes = {name: tuple(each.shape[1:]) for name, each in probe.items()}
        key = sha256_json(
            {
                "teacher": teacher.digest,
                "kept": {name: list(shape) for name, shape in self._shapes.items()},
                "seed": ctx.seed,
            }
        )
        splits: dict[str, Rows] = {split: data.indices(split) for split in _SPLITS}
        self._unlabelled = np.zeros(len(data), dtype=bool)
        self._unlabelled[splits["unlabelled"]] = True
        self._answers = ActivationCache(
            ctx.workspace / "teacher",
            {split: rows for split, rows in splits.items() if len(rows)},
            self._asked,
            ctx.emit,
            features.TEXTS if data.is_text else CHUNK,
            store=None if ctx.memo is None else ctx.memo / f"teacher-{key}",
        )

    def parts(self, rows: Rows) -> Sequence[Rows]:
        """Return the rows of a batch as they are computed: cut only where that leaves the loss what it is."""
        return super().parts(rows) if self._by_row else [rows]

    @property
    def asked(self) -> int:
        """Rows that the teacher answered; the others were found on disk."""
        return self._answers.computed

    def prepare(self, epoch: int) -> None:
        """Ask the teacher about the epoch's view and the validation split, unless its answers are stored."""
        self._answers.prepare("train", epoch % self._views.count)
        if self._unlabelled.any():
            self._answers.prepare("unlabelled", epoch % self._views.count)
        self._answers.prepare("val", 0)

    def answers(self, rows: Rows, epoch: int) -> dict[str, Tensor]:
        """Return the teacher's logits [n, K] and the other places' numbers for what `train` gives."""
        view = epoch % self._views.count
        extra = self._unlabelled[rows]
        flat = torch.empty(len(rows), sum(_size(shape) for shape in self._shapes.values()))
        for name, mask in (("train", ~extra), ("unlabelled", extra)):
            if mask.any():
                flat[torch.from_numpy(mask)] = self._answers.rows(name, view, rows[mask])
        found = self._cut(flat.to(self._device))
        if self._teacher.live:
            found |= self._teacher.answer(rows, view, self._teacher.live) | {LOGITS: found[LOGITS]}
        return found

    def validation(self) -> npt.NDArray[np.float32]:
        """Return the teacher's logits float32 [n, K] for the validation split."""
        flat = torch.from_numpy(np.array(self._answers.prepare("val", 0)))
        return self._cut(flat)[LOGITS].numpy()

    def _cut(self, flat: Tensor) -> dict[str, Tensor]:
        sizes = [_size(shape) for shape in self._shapes.values()]
        parts = torch.split(flat, sizes, dim=1)
        return {
            name: part.reshape(len(flat), *shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def _asked(self, split: str, view: int, rows: Rows) -> Tensor:
        def run(part: Rows) -> Tensor:
            found: Mapping[str, Tensor] = self._teacher.answer(
                part, None if split == "val" else view, self._teacher.kept
            )
            return torch.cat([found[name].flatten(1).float() for name in self._shapes], dim=1)

        return evaluate.in_batches(self._data, rows, run)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))

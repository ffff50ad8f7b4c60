"""What the teacher says of each training row, once per view and kept on disk, and the same views for the student."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgeft.data.augment import build
from edgeft.data.draws import sample_seeds
from edgeft.finetune import features
from edgeft.finetune.feeds import Input
from edgeft.finetune.sampling import Rows
from edgeft.finetune.session import Session
from edgeft.models.pixels import Normalizer, as_tensor


class TaughtFeed:
    """The student's input, batch after batch, and the teacher's logits for the very same.

    Epoch e sees view e mod `views` of each row. A view is the row itself, augmented by numbers that belong to row and
    view, so the teacher's answer to it stays true; texts and images without augmentation have one.

    Args:
        opened: the student and its data.
        teacher: in eval mode, on the student's device.
        views: how many.
    """

    def __init__(self, opened: Session, teacher: nn.Module, views: int) -> None:
        self._data, self._device = opened.data, opened.accelerate.device
        augment = opened.config.augment
        self._augment = build(augment) if augment else None
        self._views, self._seed = views if augment else 1, opened.ctx.seed_for("views")
        self._normalize = None if self._data.is_text else Normalizer(self._data.input, self._device)
        self._tokens = opened.token_feed() if self._data.is_text else None
        self._teacher = teacher
        self._answers = features.activation_cache(opened, "teacher", self._answer, features.TEXTS)

    @property
    def asked(self) -> int:
        """Rows that the teacher answered; the others were found on disk."""
        return self._answers.computed

    def prepare(self, epoch: int) -> None:
        """Ask the teacher about the epoch's view and the validation split, unless its answers are stored."""
        self._answers.prepare("train", epoch % self._views)
        self._answers.prepare("val", 0)

    def train(self, rows: Rows, epoch: int, step: int) -> Input:
        """Return the training input for dataset rows `rows` [n]."""
        del step
        return self._input(rows, epoch % self._views)

    def evaluate(self, rows: Rows) -> Input:
        """Return the input for dataset rows `rows` [n]; never augmented."""
        return self._input(rows, None)

    def answers(self, rows: Rows, epoch: int) -> Tensor:
        """Return the teacher's logits float32 [n, K] for what `train` gives."""
        return self._answers.rows("train", epoch % self._views, rows).to(self._device)

    def validation(self) -> npt.NDArray[np.float32]:
        """Return the teacher's logits float32 [n, K] for the validation split."""
        return np.asarray(self._answers.prepare("val", 0))

    def _input(self, rows: Rows, view: int | None) -> Input:
        if self._tokens is not None:
            return self._tokens.evaluate(rows)
        images = as_tensor(self._data.pixels[rows])
        if view is not None and self._augment is not None:
            images = self._augment.at(images, sample_seeds(self._seed, view, rows))
        if self._normalize is None:
            raise TypeError("images without a normalizer")
        return self._normalize(images)

    def _answer(self, split: str, view: int, rows: Rows) -> Tensor:
        def run(part: Rows) -> Tensor:
            with torch.no_grad():
                found: Tensor = self._teacher(self._input(part, view if split == "train" else None))
                return found

        return features.in_batches(self._data, rows, run)

"""What the recipe's `distill:` block says; pydantic and the standard library only.

distill: {student: {layers: 3}, temperature: 4.0, alpha: 0.7}
"""

from typing import Annotated, ClassVar, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from edgeft.config import Config
from edgeft.finetune.config import TrainConfig


class StudentConfig(Config):
    """Who is taught: a text teacher with fewer layers, or a network by name."""

    layers: PositiveInt | None = None
    """Of a text teacher: so many of its layers, evenly spread, the last one among them, with its weights."""
    base: str | None = None
    """Of an image teacher: `timm/NAME` or `torchvision/NAME`."""
    weights: str | None = None
    """Of `base`: a file, `package:NAME/path`, `hub`, or null for random weights."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.layers is None) == (self.base is None):
            msg = "student: give either layers (of a text teacher) or base (a network's name)"
            raise ValueError(msg)
        if self.weights is not None and self.base is None:
            msg = "student.weights goes with student.base; a student of fewer layers has its teacher's weights"
            raise ValueError(msg)
        return self


class LogitsConfig(TrainConfig):
    """Teach by the teacher's logits, softened, beside the labels (Hinton, Vinyals, Dean 2015)."""

    parallel: ClassVar[bool] = False

    student: StudentConfig
    """Who is taught."""
    temperature: PositiveFloat = 4.0
    """Both sides' logits are divided by it."""
    alpha: Annotated[float, Field(ge=0.0, le=1.0)] = 0.7
    """The teacher's share of the loss; the labels have the rest."""
    views: PositiveInt = 4
    """Augmented views of each training image; epochs take turns. The teacher answers each once."""

    @model_validator(mode="after")
    def _the_teacher_sees_what_the_student_sees(self) -> Self:
        if self.mixup or self.cutmix:
            msg = "mixup and cutmix: the teacher's answers are kept by image; leave them out"
            raise ValueError(msg)
        if self.augment_text.changes:
            msg = "augment_text: the teacher's answers are kept by text; leave it out"
            raise ValueError(msg)
        return self

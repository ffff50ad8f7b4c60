"""What the recipe's `distill:` block says; pydantic and the standard library only.

distill: {student: {layers: 3}, temperature: 4.0, alpha: 0.7}
distill: {prune: 0.3}
"""

from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from edgeft.config import Config, refusals
from edgeft.core.errors import UsageError
from edgeft.finetune.config import TrainConfig
from edgeft.models.config import InputOverride, ModelConfig

_CUT = ("layers", "hidden", "feed_forward", "drop_blocks")

Baseline = Literal["without_teacher", "from_scratch"]
"""What is trained beside the student: the same from labels alone, and that from random weights."""


class StudentConfig(Config):
    """Who is taught: the teacher itself, less some of it, or a network by name."""

    auto: bool = False
    """Choose among `distill.candidates` by measured latency and short trials; written `student: auto`."""
    layers: PositiveInt | Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None
    """Of a text teacher: how many of its layers stay, with their weights, or which, e.g. [0, 2, 5]."""
    choose: Literal["spread", "error"] = "spread"
    """Which layers, where their number is given: evenly spread, the last one among them; or one after the other the
    layer goes whose absence costs the teacher's loss least."""
    hidden: PositiveInt | None = None
    """Of a text teacher: how many hidden dimensions stay, a multiple of a head's width; heads go with them."""
    feed_forward: PositiveInt | None = None
    """Of a text teacher: how many units of each feed-forward stay."""
    drop_blocks: PositiveInt | None = None
    """Of an image teacher: so many blocks go, one after the other the one whose absence costs its loss least."""
    base: str | None = None
    """A network by name: `timm/NAME`, `torchvision/NAME`, or `transformers` for a text student in `weights`."""
    weights: str | None = None
    """Of `base`: a file, `package:NAME/path`, `hub`, or null for random weights; of `transformers` a folder."""
    input: InputOverride | None = None
    """Of an image student: what it reads otherwise than its teacher, e.g. {height: 160, width: 160}."""

    @model_validator(mode="before")
    @classmethod
    def _a_word(cls, value: object) -> object:
        return {"auto": True} if value == "auto" else value

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.auto and self.model_fields_set != {"auto"}:
            msg = "student: auto stands alone; say which students there are in distill.candidates"
            raise ValueError(msg)
        if self.base is not None and self.cuts:
            msg = f"student: give either base (a network's name) or {self.cuts[0]} (of the teacher)"
            raise ValueError(msg)
        if self.weights is not None and self.base is None:
            msg = "student.weights goes with student.base; a student cut out of its teacher has its teacher's weights"
            raise ValueError(msg)
        if self.choose == "error" and not isinstance(self.layers, int):
            msg = "student.choose goes with student.layers, a number"
            raise ValueError(msg)
        return self

    @property
    def is_teacher(self) -> bool:
        """Whether nothing of the teacher is changed."""
        return not self.auto and self.base is None and self.input is None and self.cuts == ()

    @property
    def cuts(self) -> tuple[str, ...]:
        """What is taken out of the teacher, by name."""
        return tuple(name for name in _CUT if getattr(self, name) is not None)


class CandidateConfig(Config):
    """One of the students that `student: auto` chooses among."""

    student: StudentConfig = StudentConfig()
    """As `distill.student`, at its teacher's size of images."""
    prune: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """As `distill.prune`."""

    @model_validator(mode="after")
    def _is_a_student(self) -> Self:
        if self.student.auto or self.student.input is not None or (self.student.is_teacher and self.prune is None):
            msg = (
                "candidates: each needs a student that is cut out of the teacher or named, or prune; no auto, no input"
            )
            raise ValueError(msg)
        _refuse_pruned_by_name(self.student, self.prune)
        return self


def _refuse_pruned_by_name(student: StudentConfig, prune: float | None) -> None:
    if prune is not None and student.base is not None:
        msg = "prune takes from the teacher's own weights; a student by name has others: leave one out"
        raise ValueError(msg)


def model_of(student: StudentConfig, teacher: ModelConfig, key: str = "distill.student") -> ModelConfig:
    """Return the student's model block: the teacher's where it is cut out of it.

    Args:
        student: who is taught.
        teacher: the recipe's model block.
        key: where the recipe says `student`.

    Raises:
        UsageError: the student is no network, reads something else than the teacher, or is cut as the other kind is.
    """
    if student.input is not None and teacher.takes_texts:
        raise UsageError(f"{key}.input: is for images, and the teacher takes texts", hint="remove it")
    other = f"{key}: {{layers: 3}}" if teacher.takes_texts else f"{key}: {{base: timm/mobilenetv3_small_100}}"
    if student.base is None:
        for name in student.cuts:
            if teacher.takes_texts == (name == "drop_blocks"):
                kind = "texts" if teacher.takes_texts else "images"
                raise UsageError(f"{key}.{name}: {teacher.base} takes {kind}, and has none", hint=other)
        return teacher
    try:
        named = ModelConfig(base=student.base, weights=student.weights, dropout=teacher.dropout, text=teacher.text)
    except ValidationError as error:
        raise UsageError(f"{key}: {refusals(error)}", hint=other) from error
    if named.takes_texts != teacher.takes_texts:
        reads, wanted = ("texts", "images") if named.takes_texts else ("images", "texts")
        raise UsageError(f"{key}.base: {student.base} takes {reads}, and the teacher takes {wanted}", hint=other)
    return named.model_copy(update={"input": student.input or teacher.input})


class AnswersConfig(Config):
    """How a teacher is asked about rows; fields are filled in from the `distill:` block."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """As `distill.device`."""


class KnowledgeConfig(TrainConfig):
    """Teach by the teacher's logits beside the labels, and by what happens inside of it."""

    parallel: ClassVar[bool] = False
    block: ClassVar[str] = "distill"

    lr: PositiveFloat = 1e-3
    """Peak learning rate of the trunk's topmost trained group; 1e-4 for texts unless set: a pretrained encoder forgets
    at rates that suit convolutions."""
    student: StudentConfig = StudentConfig()
    """Who is taught; by default the teacher itself, which `prune` makes smaller."""
    prune: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Share of the student's multiply-adds that go: channels of convolutions, or units of a text encoder's
    feed-forward, those that matter least."""
    prune_steps: PositiveInt = 1
    """Prune in so many steps, with `heal_epochs` of training in between."""
    heal_epochs: PositiveInt = 1
    """See `prune_steps`."""
    budget_ms: PositiveFloat | None = None
    """Of `student: auto`: most milliseconds that a student may take on this device, batch 1, on `verify.latency`'s
    threads, as int8 or float, whichever is faster."""
    candidates: tuple[CandidateConfig, ...] = ()
    """Of `student: auto`: who may be taught; empty takes a short list of the teacher's own parts."""
    finalists: PositiveInt = 3
    """Of `student: auto`: so many candidates within the budget, the slowest ones, are tried by training."""
    trial_epochs: PositiveInt = 4
    """Of `student: auto`: the last two finalists train so long; before that, each round halves who is left and doubles
    the epochs."""
    teachers: PositiveInt = 1
    """Fine-tune so many teachers, with the seeds that follow the recipe's, and average what they answer."""

    temperature: PositiveFloat = 4.0
    """Both sides' logits are divided by it."""
    alpha: Annotated[float, Field(ge=0.0, le=1.0)] = 0.7
    """The teacher's share of the loss; the labels have the rest."""
    objective: Literal["soft_targets", "decoupled"] = "soft_targets"
    """How logits are compared: Hinton et al. 2015, or target and other classes apart (Zhao et al. 2022)."""
    other_classes: NonNegativeFloat = 8.0
    """Of `decoupled`: what the classes beside the label's weigh."""
    features: NonNegativeFloat = 0.0
    """Weight of the deepest feature map's difference, of a text's vector, behind a learned projection."""
    attention: NonNegativeFloat = 0.0
    """Weight of what attention maps differ by: where feature maps are large, or what each head looks at."""
    relations: NonNegativeFloat = 0.0
    """Weight of what distances and angles between the rows of a batch differ by, at the head's input."""
    hidden: NonNegativeFloat = 0.0
    """Of texts: weight of the hidden states' difference, layer by layer, behind learned projections."""
    self_relations: NonNegativeFloat = 0.0
    """Of texts: weight of what queries, keys and values of the last layer relate otherwise to each other (MiniLMv2)."""

    views: PositiveInt = 4
    """Augmented views of each training image; epochs take turns. The teacher answers each once."""
    importance_rows: PositiveInt = 256
    """Training rows on which is measured what matters least."""
    baselines: tuple[Baseline, ...] = ()
    """Train the same student without its teacher, too, or from random weights, and report all; `true` is both."""

    @model_validator(mode="before")
    @classmethod
    def _encoders_learn_gently(cls, values: object) -> object:
        if not isinstance(values, dict) or "lr" in values:
            return values
        model = values.get("model")
        base = model.get("base") if isinstance(model, dict) else getattr(model, "base", None)
        return {**values, "lr": 1e-4} if str(base).startswith("transformers") else values

    @field_validator("baselines", mode="before")
    @classmethod
    def _all_or_none(cls, value: object) -> object:
        return (get_args(Baseline) if value else ()) if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _has_a_student(self) -> Self:
        if self.student.is_teacher and self.prune is None:
            msg = "student: give layers, hidden or feed_forward (of texts), drop_blocks (of images), base, or prune"
            raise ValueError(msg)
        if self.student.auto != (self.budget_ms is not None):
            msg = "student: auto and budget_ms go together, e.g. {student: auto, budget_ms: 5}"
            raise ValueError(msg)
        if self.student.auto and self.prune is not None:
            msg = "prune: student: auto chooses how much goes; give distill.candidates, each with its prune"
            raise ValueError(msg)
        if self.candidates and not self.student.auto:
            msg = "candidates go with student: auto"
            raise ValueError(msg)
        _refuse_pruned_by_name(self.student, self.prune)
        if self.prune_steps > 1 and self.prune is None:
            msg = "prune_steps goes with prune"
            raise ValueError(msg)
        if self.prune_steps > 1 and "without_teacher" in self.baselines:
            msg = "baselines: with prune_steps the student is healed by its teacher; leave without_teacher out"
            raise ValueError(msg)
        model_of(self.student, self.model)
        for number, candidate in enumerate(self.candidates):
            model_of(candidate.student, self.model, f"distill.candidates.{number}.student")
        return self

    @model_validator(mode="after")
    def _the_teacher_sees_what_the_student_sees(self) -> Self:
        if self.mixup or self.cutmix:
            msg = "mixup and cutmix: the teacher's answers are kept by image; leave them out"
            raise ValueError(msg)
        if self.augment_text.changes:
            msg = "augment_text: the teacher's answers are kept by text; leave it out"
            raise ValueError(msg)
        if self.hints and self.gradient_checkpointing:
            msg = f"gradient_checkpointing: {self.hints[0]} looks inside of the student; leave one of the two out"
            raise ValueError(msg)
        if self.hints and self.teachers > 1:
            msg = f"teachers: {self.hints[0]} looks inside of one teacher, and there are {self.teachers}"
            raise ValueError(msg)
        return self

    @property
    def hints(self) -> tuple[str, ...]:
        """The losses that look inside of both networks."""
        names = ("features", "attention", "relations", "hidden", "self_relations")
        return tuple(name for name in names if getattr(self, name))

    @property
    def by_row(self) -> bool:
        """Whether the loss is a plain mean over rows: not over pairs of them or tokens, nor weighted by class."""
        return self.class_weights == "none" and not set(self.hints) - {"features"}

"""Who is taught: a network by name, or the teacher with fewer layers."""

import re
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from edgeft.core.errors import UsageError
from edgeft.distill.config import StudentConfig
from edgeft.models.checkpoint import CheckpointMeta
from edgeft.models.config import ModelConfig
from edgeft.models.sources import Created, create_with_notes

_LAYER = re.compile(r"(?P<before>.*\.layer\.)(?P<index>\d+)(?P<after>\..*)")


def model_of(student: StudentConfig, teacher: ModelConfig) -> ModelConfig:
    """Return the student's model block: the teacher's where it is derived from it.

    Raises:
        UsageError: the student reads something else than the teacher.
    """
    if student.base is None:
        if not teacher.takes_texts:
            raise UsageError(
                f"distill.student.layers: {teacher.base} takes images, and only text encoders are cut so far",
                hint="name a network: distill.student.base: timm/mobilenetv3_small_100",
            )
        return teacher
    if teacher.takes_texts:
        raise UsageError(
            f"distill.student.base: {student.base}, and the teacher takes texts",
            hint="derive the student: distill.student.layers: 3",
        )
    return ModelConfig(base=student.base, weights=student.weights, dropout=teacher.dropout, input=teacher.input)


def create_student(
    student: StudentConfig,
    model: ModelConfig,
    teacher: nn.Module,
    meta: CheckpointMeta,
    weights: Path | None,
    seed: int,
) -> Created:
    """Return the student, ready to train.

    Args:
        student: who.
        model: by `model_of`.
        teacher: the fine-tuned model.
        meta: what it is.
        weights: the file that `student.weights` names.
        seed: initialises what is not pretrained.

    Raises:
        UsageError: the architecture is unknown, or the teacher cannot be cut so.
        DataError: the weights cannot be used.
    """
    if student.layers is None:
        return create_with_notes(model, weights, meta.classes, seed)
    module, kept, of = _fewer_layers(teacher, meta, student.layers)
    named = ", ".join(map(str, kept))
    return Created(module, (f"student: layers {named} of the teacher's {of} (counted from 0), with their weights",))


def spread(layers: int, kept: int) -> list[int]:
    """Return which of `layers` layers are kept: evenly spread, the last one among them.

    >>> spread(6, 3)
    [1, 3, 5]
    """
    return [round((number + 1) * layers / kept) - 1 for number in range(kept)]


def _fewer_layers(teacher: nn.Module, meta: CheckpointMeta, layers: int) -> tuple[nn.Module, Sequence[int], int]:
    from transformers import AutoConfig

    from edgeft.models import text

    if not isinstance(teacher, text.TextClassifier) or meta.encoder is None:
        raise UsageError("distill.student.layers: the teacher is no text classifier")
    if meta.inserts or len(teacher.groups()) == text.WHOLE_GROUPS:
        reason = "holds adapters, prompts or prefixes" if meta.inserts else "is no plain chain of layers"
        raise UsageError(f"distill.student.layers: the teacher {reason}, so no layer can be left out of it")
    config = AutoConfig.for_model(**meta.encoder)
    of = int(config.num_hidden_layers)
    if layers >= of:
        raise UsageError(f"distill.student.layers: {layers}, and the teacher has {of}", hint="keep fewer")
    kept = spread(of, layers)
    config.num_hidden_layers = layers
    module = text.from_config(config.to_dict(), len(meta.classes), meta.pooling or "mean", meta.dropout)
    module.load_state_dict(_renumbered(teacher.state_dict(), kept))
    return module, kept, of


def _renumbered(state: dict[str, object], kept: Sequence[int]) -> dict[str, object]:
    """Return a state with the layers `kept` alone, numbered from 0."""
    found = {}
    for name, tensor in state.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            found[name] = tensor
        elif int(match["index"]) in kept:
            found[f"{match['before']}{kept.index(int(match['index']))}{match['after']}"] = tensor
    return found

"""Who is taught: the teacher less some of it, or a network by name."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeft.core.errors import DataError
from edgeft.data.dataset import TOKENIZER, Dataset
from edgeft.distill import blocks, channels, encoders
from edgeft.distill.config import KnowledgeConfig, StudentConfig
from edgeft.distill.importance import Judge
from edgeft.finetune.feeds import Input
from edgeft.models import text_source
from edgeft.models.checkpoint import CheckpointMeta
from edgeft.models.config import ModelConfig
from edgeft.models.sources import Created, create_with_notes
from edgeft.runtime.text import TextContract


@dataclass(frozen=True, slots=True)
class Basis:
    """What a student is made from.

    Args:
        teacher: the fine-tuned model.
        meta: what it is.
        judge: rows that importance is measured on.
        example: one input that the student will read.
        weights: the file or folder that `student.weights` names.
        tokenizer: the teacher's own, before its vocabulary was trimmed; None of images.
        seed: initialises what is not pretrained.
    """

    teacher: nn.Module
    meta: CheckpointMeta
    judge: Judge
    example: Input
    weights: Path | None
    tokenizer: Path | None
    seed: int


def create_student(config: KnowledgeConfig, model: ModelConfig, basis: Basis, data: Dataset) -> Created:
    """Return the student, ready to train.

    Args:
        config: who, and how much of it goes.
        model: of the student, by `config.model_of`.
        basis: what it is made from.
        data: the student's dataset.

    Raises:
        UsageError: the architecture is unknown, or the teacher cannot be cut so.
        DataError: the weights cannot be used, or the student's tokenizer is another than the teacher's.
    """
    student = config.student
    if student.base is not None:
        if model.takes_texts:
            _require_tokenizer(basis.weights, basis.tokenizer)
            _require_inputs(model, basis.weights, data)
        return create_with_notes(model, basis.weights, basis.meta.classes, basis.seed, data.vocabulary)
    share = None if config.prune is None or config.prune_steps > 1 else config.prune
    return cut(basis, student, share)


def cut(basis: Basis, student: StudentConfig, share: float | None) -> Created:
    """Return a copy of the teacher without what `student` and `share` (of its multiply-adds) say.

    Raises:
        UsageError: it cannot be cut so.
    """
    from edgeft.models import text  # brings transformers, which image models do without

    if isinstance(basis.teacher, text.TextClassifier):
        made = encoders.cut(basis.teacher, basis.meta, student, share, basis.judge)
        return Created(made.module, tuple(f"student: {note}" for note in made.notes))
    module, notes = copy.deepcopy(basis.teacher), []
    if not isinstance(basis.example, Tensor):
        raise TypeError("an image model without pixels")
    if student.drop_blocks is not None:
        module, gone = blocks.without_blocks(module, student.drop_blocks, basis.example, basis.judge)
        notes.append(f"student: without {', '.join(gone)}")
    if share is not None:
        before, after = channels.prune_(module, basis.example, basis.judge.importance(module), share)
        notes.append(
            f"student: {after / 1e6:.1f} of {before / 1e6:.1f} million multiply-adds, {1 - after / before:.1%} pruned"
        )
    return Created(module, tuple(notes))


def reset_(module: nn.Module, model: ModelConfig, classes: Sequence[str], seed: int) -> None:
    """Give `module` random weights, as its architecture is initialised, drawn by `seed`.

    Args:
        module: a student.
        model: its block; what its tensors were cut from, where it was.
        classes: by name.
        seed: of what is drawn.
    """
    from edgeft.models import text  # as above

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(module, text.TextClassifier):
            config = text.config_json(module)
            state = text.from_config(config, module.classifier.out_features, module.pooling, 0.0).state_dict()
            module.load_state_dict(state)
            return
        for part in module.modules():  # of what is no part of the architecture
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()
        unpretrained = model.model_copy(update={"weights": None})
        fresh = create_with_notes(unpretrained, None, classes, seed, None).module.state_dict()
        for name, tensor in module.state_dict().items():
            if name in fresh:  # where layers were made narrower, the first channels of it
                tensor.copy_(fresh[name][tuple(slice(size) for size in tensor.shape)])


def _require_inputs(model: ModelConfig, folder: Path | None, data: Dataset) -> None:
    """Prove that a text student by name takes texts as long as the data's, and pairs where they are pairs.

    Raises:
        DataError: it has no segment types, and the data are pairs.
        UsageError: it has too few positions.
    """
    contract = data.contract
    if folder is None or not isinstance(contract, TextContract):
        raise TypeError("a text student without weights or texts")
    told = text_source.describe(model, folder)
    if contract.types and not told["has_types"]:
        raise DataError(
            f"distill.student.weights: the model in {folder} knows no segment types, and the data are pairs of texts",
            hint="name a student of BERT's kind, or cut one out of the teacher: distill.student: {layers: 3}",
        )


def _require_tokenizer(folder: Path | None, teachers: Path | None) -> None:
    """Prove that a text student by name reads the very tokens that its teacher reads.

    Raises:
        DataError: it has another tokenizer.
    """
    own = None if folder is None else folder / TOKENIZER
    if own is None or not own.is_file() or teachers is None or own.read_bytes() != teachers.read_bytes():
        raise DataError(
            f"distill.student.weights: {own} is not the teacher's tokenizer, so the two would read other tokens",
            hint="name a student with the teacher's tokenizer.json, or cut one out of it: distill.student: {layers: 3}",
        )

"""Where models come from: an architecture by name, pretrained weights from a file or hub, and a new classifier.

`describe` imports no training library for architectures in contracts.json at their own size, so that planning stays
quick.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from edgeft.core.errors import DataError, UsageError
from edgeft.models.config import ModelConfig
from edgeft.models.contracts import native_contract
from edgeft.runtime.preprocess import InputContract

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

_HUB = "hub"
Vocabulary: TypeAlias = "npt.NDArray[np.int64] | None"
"""Ids of the tokens to keep, ascending; None keeps all."""


@dataclass(frozen=True, slots=True)
class Created:
    """A model ready to fine-tune, and what a reader must know about where its weights came from."""

    module: "nn.Module"
    notes: tuple[str, ...]


def describe(config: ModelConfig) -> InputContract:
    """Return how images become this model's input: what it was pretrained with, then the recipe's overrides.

    An override of height or width alone leaves the other as it is; `resize: squash` drops `resize_to`; a new size
    with `shorter_side` scales `resize_to` in proportion.

    Raises:
        UsageError: the architecture is unknown, takes no images of that size, or the overrides contradict each other.
    """
    native = native_contract(config.library, config.architecture)
    changed = config.input
    height, width = changed.height or native.height, changed.width or native.width
    if (height, width) != (native.height, native.width):
        _require_size(config, height, width, native)
    resize = changed.resize or native.resize
    resize_to = changed.resize_to
    if resize == "shorter_side" and resize_to is None:
        margin = (native.resize_to or native.height) / native.height
        resize_to = round(max(height, width) * margin)
    return InputContract(
        height=height,
        width=width,
        resize=resize,
        resize_to=resize_to,
        filter=changed.filter or native.filter,
        mean=changed.mean or native.mean,
        std=changed.std or native.std,
    )


def _require_size(config: ModelConfig, height: int, width: int, native: InputContract) -> None:
    from edgeft.models.library_contracts import takes

    if not takes(config.library, config.architecture, height, width):
        raise UsageError(
            f"model.input: {config.base} takes no images of {height} x {width} pixels, its own are {native.height} x "
            f"{native.width}",
            hint="leave height and width out (of a student: distill.student.input), or take a network of convolutions",
        )


def create(
    config: ModelConfig, weights: Path | None, classes: Sequence[str], seed: int, vocabulary: Vocabulary = None
) -> "nn.Module":
    """Return the model with pretrained weights and a new classifier of `len(classes)` outputs.

    Args:
        config: the recipe's model block.
        weights: the file or folder that `config.weights` names, resolved; None for `hub` and for random weights. The
            folder of a checkpoint gives its classifier, too.
        classes: class names in their frozen order.
        seed: initialises what is not pretrained.
        vocabulary: rows of a text encoder's embeddings to keep.

    Raises:
        UsageError: unknown architecture, or `config.weights` names a file and `weights` is None.
        DataError: the file cannot be read, or its tensors do not fit.
        DeviceError: `hub`, and the weights could not be downloaded.
    """
    return create_with_notes(config, weights, classes, seed, vocabulary).module


def create_with_notes(
    config: ModelConfig, weights: Path | None, classes: Sequence[str], seed: int, vocabulary: Vocabulary = None
) -> Created:
    """Do what `create` does, and say how the weights were matched."""
    import torch

    from edgeft.models import architectures, checkpoint
    from edgeft.models import weights as files

    if weights is not None and (weights / checkpoint.META).is_file():
        return _trimmed(_from_checkpoint(config, weights, classes), vocabulary)
    if config.takes_texts:
        return _trimmed(_text_model(config, weights, classes, seed), vocabulary)
    hub = config.weights == _HUB
    if config.weights is not None and not hub and weights is None:
        raise UsageError(f"model.weights: {config.weights!r} was not resolved to a file")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = architectures.build(config.library, config.architecture, dropout=config.dropout, hub=hub)
        if weights is not None:
            head = architectures.classifier_prefix(module)
            note = files.load_(module, files.read(weights), head=head, source=weights.name)
        else:
            note = f"weights: {config.library}'s own, downloaded" if hub else "weights: none, training starts at random"
        architectures.replace_classifier_(module, len(classes), config.dropout)
    return Created(architectures.channels_last_(module), (note,))


def _trimmed(created: Created, vocabulary: Vocabulary) -> Created:
    if vocabulary is None:
        return created
    from edgeft.models import text

    module = created.module
    if not isinstance(module, text.TextClassifier):
        raise TypeError(f"{type(module).__name__} has no vocabulary")
    before = text.vocabulary_size(module)
    text.keep_tokens_(module, vocabulary)
    return Created(module, (*created.notes, f"vocabulary: {len(vocabulary):,} of {before:,} embeddings are kept"))


def _from_checkpoint(config: ModelConfig, folder: Path, classes: Sequence[str]) -> Created:
    from edgeft.models import checkpoint

    module, meta = checkpoint.load(folder)
    if meta.architecture != config.base and not (
        config.takes_texts and meta.encoder
    ):  # an encoder tells what it is itself
        raise UsageError(
            f"model.base: {config.base}, and {folder} holds {meta.architecture}",
            hint=f"model.base: {meta.architecture}",
        )
    if meta.classes != tuple(classes):
        raise DataError(
            f"{folder}: its classes are {', '.join(meta.classes)}, the data's are {', '.join(classes)}",
            hint="start from the pretrained weights instead, or give data with the same classes (data.classes)",
        )
    return Created(module.train(), (f"weights: the checkpoint in {folder.name}, its classifier too",))


def _text_model(config: ModelConfig, folder: Path | None, classes: Sequence[str], seed: int) -> Created:
    import torch

    from edgeft.models import text

    if folder is None:
        raise UsageError(f"model.weights: {config.weights!r} was not resolved to a folder")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = text.from_folder(folder, len(classes), config.text.pooling, config.dropout)
    groups = len(module.groups())
    run = "as a chain of its layers" if groups > text.WHOLE_GROUPS else "whole: its layers are no plain chain"
    return Created(module, (f"weights: the encoder in {folder.name}, run {run}",))

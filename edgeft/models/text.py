"""Text classifiers: a transformers encoder, pooled, with a linear head.

    tokens > embeddings > layer 0 > ... > layer L-1 > pooling > dropout > linear > logits

The masks of attention and pooling are computed once, from `attention_mask`. Encoders that are a chain of layers (BERT,
RoBERTa, XLM-R, DistilBERT, ELECTRA without a projection) are run as one, so that each layer can be frozen, cached or
given its own learning rate; any other is run whole.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from optimum.exporters.tasks import TasksManager
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from edgeft.core.errors import DataError, first_line
from edgeft.models import prefixes
from edgeft.models.inserts import PLACE
from edgeft.models.inserts import of as inserts_of
from edgeft.models.probing import at_rest
from edgeft.runtime.text import IDS, MASK, TYPES

TASK = "feature-extraction"
"""optimum's name of what an encoder does."""
MASKED = -1e4
"""Added to attention scores of padding: its weight is 0 after softmax, in half precision, too."""
WHOLE_GROUPS = 2
"""Groups of an encoder that is run whole: it and the head."""
_HEAD_STD = 0.02
_POOLER = "pooler."
_OF_THE_MACHINE = frozenset({"_name_or_path", "transformers_version"})
"""Keys of a configuration that say where it was read, not what the encoder is."""
_PROBE_ATOL = 1e-4
_PROBE_LENGTH = 4
Tokens: TypeAlias = Mapping[str, Tensor]
"""int64 [N, L] by input."""


class Hidden(NamedTuple):
    """What one layer hands to the next.

    Args:
        states: float [N, L, D].
        mask: float [N, L, 1], 1 where there is a token.
        bias: float [N, 1, 1, L], added to attention scores.
    """

    states: Tensor
    mask: Tensor
    bias: Tensor


class Embed(nn.Module):
    """Tokens to the first hidden states."""

    def __init__(self, embeddings: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, tokens: Tokens) -> Hidden:
        """Return the embeddings of `tokens`, and the masks."""
        types = {TYPES: tokens[TYPES]} if TYPES in tokens else {}
        if not types and hasattr(self.embeddings, "token_type_embeddings"):  # one row for all, not one for each token
            types = {TYPES: torch.zeros(1, 1, dtype=torch.int64, device=tokens[IDS].device)}
        states = self.embeddings(input_ids=tokens[IDS], **types)
        mask = tokens[MASK].to(states.dtype)
        seen = mask
        prompt = getattr(self.embeddings, PLACE, None)
        if prompt is not None:  # attention sees it, pooling does not
            states = prompt.behind(states)
            beside = torch.zeros_like(states[:, mask.shape[1] :, 0])
            mask, seen = torch.cat([mask, beside], dim=1), torch.cat([mask, beside + 1], dim=1)
        return Hidden(states, mask[:, :, None], ((1 - seen) * MASKED)[:, None, None, :])


class Layer(nn.Module):
    """One layer of the encoder."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Hidden) -> Hidden:
        """Return the next hidden states."""
        found = self.layer(hidden.states, hidden.bias)
        return hidden._replace(states=found[0] if isinstance(found, tuple) else found)


class Whole(nn.Module):
    """An encoder that is no plain chain of layers."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tokens) -> Hidden:
        """Return the last hidden states of `tokens`."""
        states = self.encoder(**tokens).last_hidden_state
        mask = tokens[MASK].to(states.dtype)
        return Hidden(states, mask[:, :, None], mask)


class Pool(nn.Module):
    """Hidden states to one vector a text: their mean over the text's tokens, or the first."""

    def __init__(self, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling

    def forward(self, hidden: Hidden) -> Tensor:
        """Return float [N, D]."""
        if self.pooling == "first":
            return hidden.states[:, 0]
        return (hidden.states * hidden.mask).sum(1) / hidden.mask.sum(1)


class TextClassifier(nn.Module):
    """An encoder with a new head.

    Args:
        encoder: any transformers encoder.
        classes: K.
        pooling: "mean" over the tokens, or the "first" token.
        dropout: in front of the head, while training.
    """

    def __init__(self, encoder: PreTrainedModel, classes: int, pooling: str, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width(encoder), classes)
        nn.init.normal_(self.classifier.weight, std=_HEAD_STD)
        nn.init.zeros_(self.classifier.bias)
        self.pooling = pooling
        object.__setattr__(self, "_groups", _groups(encoder, Pool(pooling), self.dropout, self.classifier))

    def groups(self) -> list[tuple[str, nn.Module]]:
        """Return the depth groups from the embeddings to the head; they share this module's parameters."""
        found: list[tuple[str, nn.Module]] = self._groups  # type: ignore[assignment] # set past nn.Module
        return found

    def forward(self, tokens: Tokens) -> Tensor:
        """Return logits [N, K] for `tokens`."""
        value: Any = tokens
        for _, group in self.groups():
            value = group(value)
        logits: Tensor = value
        return logits


def from_folder(folder: Path, classes: int, pooling: str, dropout: float) -> TextClassifier:
    """Return the encoder in `folder` with a new head.

    Raises:
        DataError: the folder holds no model that transformers can load as an encoder.
    """
    model_class = TasksManager.get_model_class_for_task(TASK, framework="pt", library="transformers")
    try:
        with _quiet():
            encoder, told = model_class.from_pretrained(str(folder), local_files_only=True, output_loading_info=True)
    except Exception as error:  # transformers raises many types, none of them documented
        raise DataError(
            f"model.weights: {folder} cannot be loaded as an encoder: {first_line(error)}",
            hint="give a folder that transformers' save_pretrained wrote",
        ) from error
    missing = sorted(key for key in told["missing_keys"] if not key.startswith(_POOLER))
    if missing:
        raise DataError(
            f"model.weights: {folder} lacks {len(missing)} tensors of its own {encoder.config.model_type}, first "
            f"{missing[0]!r}",
            hint="fetch the folder again, whole",
        )
    return TextClassifier(_without_pooler(encoder.float()), classes, pooling, dropout)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing bars and from warning of a pooler that is not used."""
    before = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # transformers' own
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call] # likewise
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def from_config(config: Mapping[str, Any], classes: int, pooling: str, dropout: float) -> TextClassifier:
    """Return the architecture of a checkpoint, with random float32 weights; `config` is transformers' own, as JSON."""
    known = AutoConfig.for_model(**config)
    encoder = AutoModel.from_config(known)  # type: ignore[no-untyped-call] # untyped there
    return TextClassifier(_without_pooler(encoder.float()), classes, pooling, dropout)


def config_json(module: TextClassifier) -> dict[str, Any]:
    """Return the encoder's configuration as JSON values, to build it again from."""
    values: dict[str, Any] = json.loads(json.dumps(module.encoder.config.to_dict()))  # numbers as keys become text
    return {name: value for name, value in values.items() if name not in _OF_THE_MACHINE}


def set_attention_(module: TextClassifier, name: str) -> None:
    """Compute attention by transformers' "sdpa" (fused, to train) or "eager" (plain products, to export)."""
    prefixed = any(insert.kind == "prefix" for insert in inserts_of(module))
    module.encoder.set_attn_implementation(prefixes.NAMES[name] if prefixed else name)


def attentions(module: TextClassifier) -> dict[str, tuple[int, ...]]:
    """Return the attentions that a prefix fits, by name: heads and the width of each."""
    ids = torch.ones(1, _PROBE_LENGTH, dtype=torch.int64, device=next(module.parameters()).device)

    def run() -> None:
        with at_rest(module):
            module({IDS: ids, MASK: ids})

    return {f"encoder.{name}": shape for name, shape in prefixes.attentions(module.encoder, run).items()}


def vocabulary_size(module: TextClassifier) -> int:
    """Return the number of tokens that the encoder has an embedding of."""
    return int(module.encoder.config.vocab_size)


def keep_tokens_(module: TextClassifier, kept: npt.NDArray[np.int64]) -> None:
    """Keep the embeddings of the tokens `kept` [K], ascending, which become tokens 0..K-1.

    A module that has K embeddings already stays as it is: it was made so before.

    Raises:
        DataError: it has other tokens.
    """
    encoder = module.encoder
    old: Any = encoder.get_input_embeddings()
    if len(kept) == old.num_embeddings:
        return
    if int(kept.max()) >= old.num_embeddings:
        raise DataError(
            f"the tokenizer has a token {int(kept.max())}, the encoder {old.num_embeddings:,} embeddings",
            hint="take tokenizer.json and model.safetensors from one model",
        )
    padding = encoder.config.pad_token_id
    place = None if padding is None or padding not in kept else int(np.searchsorted(kept, padding))
    if padding is not None and place != padding:  # RoBERTa counts positions from it
        raise DataError(
            f"the padding token {padding} would become {place}", hint="keep the vocabulary: model.text.vocabulary: all"
        )
    new = nn.Embedding(len(kept), old.embedding_dim, padding_idx=old.padding_idx, dtype=old.weight.dtype)
    with torch.no_grad():
        new.weight.copy_(old.weight[torch.from_numpy(kept)])
    encoder.set_input_embeddings(new)
    encoder.config.vocab_size = len(kept)


def width(encoder: PreTrainedModel) -> int:
    """Return D, the width of the hidden states."""
    return int(encoder.config.hidden_size)


def _without_pooler(encoder: Any) -> PreTrainedModel:  # noqa: ANN401 - transformers' models
    """Drop BERT's pooler, which classifies sentence pairs of its pretraining and is not used here."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    found: PreTrainedModel = encoder
    return found


def _groups(
    encoder: PreTrainedModel, pool: Pool, dropout: nn.Module, classifier: nn.Module
) -> list[tuple[str, nn.Module]]:
    head = ("head", nn.Sequential(dropout, classifier))
    embeddings = getattr(encoder, "embeddings", None)
    above = getattr(encoder, "encoder", None) or getattr(encoder, "transformer", None)
    layers = getattr(above, "layer", None)
    if isinstance(embeddings, nn.Module) and isinstance(layers, nn.ModuleList) and len(layers):
        *below, top = [Layer(layer) for layer in layers]
        body = [("embeddings", Embed(embeddings)), *((f"layer.{i}", layer) for i, layer in enumerate(below))]
        chained = [*body, (f"layer.{len(below)}", nn.Sequential(top, pool))]
        if _reproduces(encoder, [group for _, group in chained[:-1]] + [top]):
            return [*chained, head]
    return [("encoder", nn.Sequential(Whole(encoder), pool)), head]


def _reproduces(encoder: PreTrainedModel, chained: list[nn.Module]) -> bool:
    """Return whether the chain gives the encoder's own hidden states, on two rows of which one is padded."""
    known = int(encoder.config.vocab_size)
    ids = torch.randint(known // 2, known, (2, 7), generator=torch.Generator().manual_seed(0))  # no special tokens
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    tokens = {IDS: ids, MASK: mask}
    try:
        with at_rest(encoder):
            value: Any = tokens
            for group in chained:
                value = group(value)
            expected = encoder(**tokens).last_hidden_state
            kept = mask.bool()
            return bool(torch.allclose(value.states[kept], expected[kept], atol=_PROBE_ATOL))
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False  # the layers do not chain: that is what is being asked

"""A text student cut out of its teacher: fewer layers, a narrower feed-forward, fewer heads and hidden dimensions.

What stays keeps its weights. Hidden dimensions are the same in all layers; heads and units of the feed-forward are
chosen in each layer by itself.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from edgeft.core.errors import UsageError
from edgeft.distill.config import StudentConfig
from edgeft.distill.importance import Importance, Judge, left_out
from edgeft.models import text
from edgeft.models.checkpoint import CheckpointMeta

ROUND = 8
"""The feed-forward's width stays a multiple of it where a share is given."""
_LAYER = re.compile(r"(?P<before>.*\.layer\.)(?P<index>\d+)(?P<after>\..*)")
_AXES: Sequence[tuple[str, tuple[str, ...]]] = (
    (r"encoder\.embeddings\.\w+_embeddings\.weight", ("", "hidden")),
    (r".*LayerNorm\.(weight|bias)", ("hidden",)),
    (r".*attention\.self\.(query|key|value)\.weight", ("heads", "hidden")),
    (r".*attention\.self\.(query|key|value)\.bias", ("heads",)),
    (r".*attention\.output\.dense\.weight", ("hidden", "heads")),
    (r".*intermediate\.dense\.weight", ("inner", "hidden")),
    (r".*intermediate\.dense\.bias", ("inner",)),
    (r".*layer\.\d+\.output\.dense\.weight", ("hidden", "inner")),
    (r".*output\.dense\.bias", ("hidden",)),
    (r".*_layer_norm\.(weight|bias)", ("hidden",)),
    (r".*attention\.[qkv]_lin\.weight", ("heads", "hidden")),
    (r".*attention\.[qkv]_lin\.bias", ("heads",)),
    (r".*attention\.out_lin\.weight", ("hidden", "heads")),
    (r".*ffn\.lin1\.weight", ("inner", "hidden")),
    (r".*ffn\.lin1\.bias", ("inner",)),
    (r".*ffn\.lin2\.weight", ("hidden", "inner")),
    (r".*(ffn\.lin2|attention\.out_lin)\.bias", ("hidden",)),
    (r"classifier\.weight", ("", "hidden")),
    (r"classifier\.bias", ("",)),
)
"""What each axis of BERT's tensors counts, by name, and of DistilBERT's; RoBERTa, XLM-R and ELECTRA have BERT's."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A student and what was left out of it."""

    module: text.TextClassifier
    notes: tuple[str, ...]


def cut(
    teacher: text.TextClassifier, meta: CheckpointMeta, student: StudentConfig, share: float | None, judge: Judge
) -> Cut:
    """Return the student that `student` describes, with its teacher's weights.

    Args:
        teacher: the fine-tuned model.
        meta: what it is.
        student: layers, hidden dimensions, width of the feed-forward.
        share: of the multiply-adds that the feed-forward gives up.
        judge: rows that importance is measured on.

    Raises:
        UsageError: the teacher cannot be cut so.
    """
    _require_chain(teacher, meta)
    module, notes = teacher, []
    if student.layers is not None:
        of = _layers(teacher)
        kept = _kept(teacher, meta, student, judge)
        module = fewer_layers(teacher, meta, kept)
        notes.append(f"layers {', '.join(map(str, kept))} of the teacher's {of} (counted from 0)")
    if student.feed_forward is not None and share is not None:
        raise UsageError("distill.prune: narrows the feed-forward, too", hint="keep it or student.feed_forward")
    if student.hidden is None and student.feed_forward is None and share is None:
        return Cut(module, tuple(notes))
    found = narrowed(module, meta, student.hidden, student.feed_forward, share, judge.importance(module))
    for key, what in (("hidden_size", "hidden dimensions"), (_units(module), "units of each feed-forward")):
        now, before = (int(getattr(each.encoder.config, key)) for each in (found, module))
        if now != before:
            notes.append(f"{now} of {before} {what}")
    return Cut(found, tuple(notes))


def spread(layers: int, kept: int) -> list[int]:
    """Return which of `layers` layers are kept: evenly spread, the last one among them; of too few some stand twice.

    >>> spread(6, 3)
    [1, 3, 5]
    """
    return [max(0, round((number + 1) * layers / kept) - 1) for number in range(kept)]


def fewer_layers(module: text.TextClassifier, meta: CheckpointMeta, kept: Sequence[int]) -> text.TextClassifier:
    """Return a copy of `module` with the layers `kept` alone, in this order."""
    return _with(module, meta, {"num_hidden_layers": len(kept)}, _renumbered(module.state_dict(), kept))


def narrowed(
    module: text.TextClassifier,
    meta: CheckpointMeta,
    hidden: int | None,
    inner: int | None,
    share: float | None,
    importance: Importance,
) -> text.TextClassifier:
    """Return a copy of `module` with the hidden dimensions and the units of each feed-forward that matter most.

    Args:
        module: an encoder of BERT's kind.
        meta: what it is.
        hidden: how many hidden dimensions stay; None keeps all. Heads go with them: each keeps its width.
        inner: how many units stay; None keeps all.
        share: of the multiply-adds that the units give up, where `inner` is None.
        importance: of its parameters.

    Raises:
        UsageError: the encoder is none of BERT's kind, or a width is no multiple of a head's or above the teacher's.
    """
    state, config = module.state_dict(), module.encoder.config
    axes = {name: _axes(name) for name in state}
    width, units = text.width(module.encoder), int(getattr(config, _units(module)))
    hidden = hidden or width
    inner = _pruned(hidden, units, share) if share is not None else inner or units
    head = width // int(config.num_attention_heads)
    for key, wanted, most in (("hidden", hidden, width), ("feed_forward", inner, units)):
        if not 0 < wanted <= most:
            raise UsageError(f"distill.student.{key}: {wanted}, and the teacher has {most}", hint="keep fewer")
    if hidden % head:
        low = hidden // head * head or head
        raise UsageError(
            f"distill.student.hidden: {hidden} is no multiple of a head's {head} dimensions",
            hint=f"distill.student.hidden: {low}",
        )
    dims = _best(_over("hidden", axes, importance), hidden)
    layers: dict[str, dict[str, Tensor]] = {}
    for number in range(_layers(module)):
        own = {name: kinds for name, kinds in axes.items() if f".layer.{number}." in name}
        heads = _over("heads", own, importance).reshape(-1, head).sum(1)
        rows = (_best(heads, hidden // head)[:, None] * head + torch.arange(head)).reshape(-1)
        layers[str(number)] = {"heads": rows, "inner": _best(_over("inner", own, importance), inner)}
    found = {}
    for name, tensor in state.items():
        match = _LAYER.fullmatch(name)
        known = {"hidden": dims, **(layers[match["index"]] if match else {})}
        value = tensor
        for axis, kind in enumerate(axes[name]):
            value = value.index_select(axis, known[kind].to(value.device)) if kind else value
        found[name] = value
    changes = {"hidden_size": hidden, "num_attention_heads": hidden // head, _units(module): inner}
    if hasattr(config, "embedding_size"):  # ELECTRA's, as wide as the hidden states where nothing projects them
        changes["embedding_size"] = hidden
    return _with(module, meta, changes, found)


def _with(
    module: text.TextClassifier, meta: CheckpointMeta, changes: Mapping[str, int], state: Mapping[str, Tensor]
) -> text.TextClassifier:
    """Return a module of the same configuration but `changes`, with the weights `state`."""
    own = module.encoder.config.attribute_map
    named = {own.get(name, name): value for name, value in changes.items()}
    config = AutoConfig.for_model(**{**text.config_json(module), **named}).to_dict()
    made = text.from_config(config, len(meta.classes), meta.pooling or "mean", meta.dropout)
    made.load_state_dict(state)
    return made.eval().to(next(module.parameters()).device)


def _units(module: text.TextClassifier) -> str:
    """Return what the configuration calls the units of each feed-forward."""
    return "intermediate_size" if hasattr(module.encoder.config, "intermediate_size") else "hidden_dim"


def _require_chain(teacher: text.TextClassifier, meta: CheckpointMeta) -> None:
    if meta.inserts or len(teacher.groups()) == text.WHOLE_GROUPS:
        reason = "holds adapters, prompts or prefixes" if meta.inserts else "is no plain chain of layers"
        raise UsageError(
            f"distill.student: the teacher {reason}, so nothing can be left out of it",
            hint="name a student instead: distill.student: {base: transformers, weights: FOLDER}",
        )


def _layers(module: text.TextClassifier) -> int:
    return int(module.encoder.config.num_hidden_layers)


def _kept(teacher: text.TextClassifier, meta: CheckpointMeta, student: StudentConfig, judge: Judge) -> list[int]:
    of, wanted = _layers(teacher), student.layers
    if isinstance(wanted, tuple):
        if sorted(set(wanted)) != list(wanted) or wanted[-1] >= of:
            raise UsageError(
                f"distill.student.layers: {list(wanted)}, and the teacher has the layers 0 to {of - 1}",
                hint="name some of them, ascending, each once",
            )
        return list(wanted)
    if wanted is None or wanted >= of:
        raise UsageError(f"distill.student.layers: {wanted}, and the teacher has {of}", hint="keep fewer")
    if student.choose == "spread":
        return spread(of, wanted)

    def without(gone: Sequence[str]) -> float:
        kept = [number for number in range(of) if str(number) not in gone]
        return judge.loss(fewer_layers(teacher, meta, kept))

    gone = left_out([str(number) for number in range(of)], of - wanted, without)
    return [number for number in range(of) if str(number) not in gone]


def _pruned(width: int, units: int, share: float) -> int:
    """Return the feed-forward's units without `share` of the multiply-adds of all linear layers of the encoder."""
    whole = 4 * width * width + 2 * width * units
    left = int(units - share * whole / (2 * width)) // ROUND * ROUND
    if left < ROUND:
        most = 2 * width * (units - ROUND) / whole
        raise UsageError(
            f"distill.prune: {share:g} of the multiply-adds, and the feed-forward has {most:.2f} to give",
            hint="keep fewer layers or hidden dimensions: distill.student: {layers: 3}",
        )
    return left


def _renumbered(state: Mapping[str, Tensor], kept: Sequence[int]) -> dict[str, Tensor]:
    """Return a state with the layers `kept` alone, numbered from 0."""
    found = {}
    for name, tensor in state.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            found[name] = tensor
        elif int(match["index"]) in kept:
            found[f"{match['before']}{kept.index(int(match['index']))}{match['after']}"] = tensor
    return found


def _axes(name: str) -> tuple[str, ...]:
    for pattern, axes in _AXES:
        if re.fullmatch(pattern, name):
            return axes
    raise UsageError(
        f"distill.student: {name} is in none of the places that BERT's tensors have, so it cannot be made narrower",
        hint="keep fewer layers instead: distill.student.layers",
    )


def _over(kind: str, axes: Mapping[str, tuple[str, ...]], importance: Importance) -> Tensor:
    """Return the importance of each index of `kind`, over all tensors whose first axis counts it."""
    return torch.stack([importance[name] for name, kinds in axes.items() if kinds[0] == kind]).sum(0)


def _best(importance: Tensor, count: int) -> Tensor:
    """Return the `count` most important indices, ascending."""
    order: Any = torch.argsort(importance, descending=True, stable=True)[:count]
    found: Tensor = order.sort().values
    return found

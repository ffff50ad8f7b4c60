"""Prefixes in transformers' encoders: an attention function that puts a module's own keys and values before the others.

Every encoder of transformers asks one registry for its attention function, so two more entries there (fused and plain)
serve them all, and nothing of the encoder is written anew.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import eager_attention_forward

from edgeft.models.inserts import PLACE

_FUSED, _PLAIN, _NOTING = "sdpa", "eager", "edgeft_noting"
NAMES: Final[Mapping[str, str]] = {_FUSED: "edgeft_prefixed_sdpa", _PLAIN: "edgeft_prefixed_eager"}
"""transformers' name of an attention function -> that of the same one that sees prefixes."""


def attentions(encoder: PreTrainedModel, run: Callable[[], object]) -> dict[str, tuple[int, ...]]:
    """Return the attentions of `encoder` that `run` calls, by name: heads and the width of each.

    Args:
        encoder: computes attention by the fused function afterwards.
        run: runs the encoder once.
    """
    found: dict[str, tuple[int, ...]] = {}
    names = {id(part): name for name, part in encoder.named_modules()}
    fused = ALL_ATTENTION_FUNCTIONS[_FUSED]

    def note(part: nn.Module, query: Tensor, key: Tensor, *rest: Any, **more: Any) -> Any:  # noqa: ANN401 - transformers'
        found[names[id(part)]] = (int(key.shape[1]), int(key.shape[3]))
        return fused(part, query, key, *rest, **more)

    _register(_NOTING, note, _FUSED)
    encoder.set_attn_implementation(_NOTING)
    try:
        run()
    finally:
        encoder.set_attn_implementation(_FUSED)
    return found


def _see_prefix(attend: Callable[..., Any]) -> Callable[..., Any]:
    def attention(  # transformers' own interface
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **more: Any,  # noqa: ANN401 - passed on
    ) -> Any:  # noqa: ANN401 - likewise
        prefix = getattr(module, PLACE, None)
        if prefix is not None:
            batch = key.shape[0]
            key = torch.cat([prefix.keys.expand(batch, -1, -1, -1), key], dim=2)
            value = torch.cat([prefix.values.expand(batch, -1, -1, -1), value], dim=2)
            if mask is not None:
                seen = mask.new_zeros(1) if mask.is_floating_point() else mask.new_ones(1)
                mask = torch.cat([seen.expand(*mask.shape[:-1], prefix.keys.shape[1]), mask], dim=-1)
        return attend(module, query, key, value, mask, **more)

    return attention


def _register(name: str, attention: Callable[..., Any], like: str) -> None:
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[like])


_register(NAMES[_FUSED], _see_prefix(ALL_ATTENTION_FUNCTIONS[_FUSED]), _FUSED)
_register(NAMES[_PLAIN], _see_prefix(eager_attention_forward), _PLAIN)

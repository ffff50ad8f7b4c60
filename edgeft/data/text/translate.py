"""Back-translation: a text said in other words, by way of another language (Sennrich et al. 2016).

The two translation models are the user's own folders, as transformers' save_pretrained writes them (Marian, M2M and
other encoder-decoders); nothing is downloaded.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from edgeft.core.errors import DataError, first_line

_BATCH = 16
_LONGEST = 256
"""Tokens of a translation at most."""


def back_translations(
    texts: Sequence[str], there: Path, back: Path, told: Callable[[int, int], None] = lambda _, __: None
) -> list[str]:
    """Return each text translated and translated back, by greedy search; the text itself where nothing comes back.

    Args:
        texts: to translate.
        there: folder of the model into the other language.
        back: folder of the model from it.
        told: is told how many of how many translations are done.

    Raises:
        DataError: a folder holds no translation model with its tokenizer.
    """
    first = translate(texts, there, lambda done, total: told(done, 2 * total))
    second = translate(first, back, lambda done, total: told(total + done, 2 * total))
    return [found if found.strip() else text for found, text in zip(second, texts, strict=True)]


def translate(texts: Sequence[str], folder: Path, told: Callable[[int, int], None] = lambda _, __: None) -> list[str]:
    """Return the translation of each text by the model in `folder`.

    Raises:
        DataError: it holds no translation model with its tokenizer.
    """
    tokenizer, model = _load(folder)
    longest = min(_LONGEST, getattr(model.config, "max_position_embeddings", None) or _LONGEST)
    found: list[str] = []
    with torch.inference_mode():
        for start in range(0, len(texts), _BATCH):
            batch = [text or " " for text in texts[start : start + _BATCH]]
            tokens = tokenizer(batch, return_tensors="pt", padding=True, truncation=True, max_length=longest)
            tokens.pop("token_type_ids", None)
            written = model.generate(**tokens, num_beams=1, do_sample=False, max_new_tokens=longest - 1)
            found += tokenizer.batch_decode(written, skip_special_tokens=True)
            told(len(found), len(texts))
    return found


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model = AutoModelForSeq2SeqLM.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers raises many types, none of them documented
        raise DataError(
            f"{folder}: holds no translation model with its tokenizer: {first_line(error)}",
            hint="give a folder that save_pretrained wrote; Marian's tokenizer needs: pip install sentencepiece",
        ) from error
    return tokenizer, model.eval()

"""What a transformers folder says about its input, without importing transformers: planning stays quick."""

import json
from pathlib import Path
from typing import Any

from edgeft.core.errors import DataError, UsageError
from edgeft.core.stage import Json
from edgeft.models.config import ModelConfig

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
_POSITIONS_BEHIND_PADDING = frozenset({"camembert", "roberta", "xlm-roberta"})
"""Model types whose positions begin after the padding token's."""


def describe(config: ModelConfig, folder: Path) -> dict[str, Json]:
    """Return the fields of `edgeft.data.text.config:TextInputConfig` for the model in `folder`.

    Raises:
        DataError: the folder holds no config.json or no tokenizer.json, or one that cannot be read.
        UsageError: the model has fewer positions than `model.text.max_length`.
    """
    values = read_config(folder)
    if not (folder / TOKENIZER).is_file():
        raise DataError(
            f"model.weights: {folder} holds no {TOKENIZER}",
            hint="save it with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )
    pad = values.get("pad_token_id") or 0
    positions = values.get("max_position_embeddings")
    if isinstance(positions, int):
        if values.get("model_type") in _POSITIONS_BEHIND_PADDING:
            positions -= pad + 1
        if config.text.max_length > positions:
            raise UsageError(
                f"model.text.max_length: {config.text.max_length}, the model in {folder} has {positions} positions",
                hint=f"model.text.max_length: {positions} at most",
            )
    return {
        "max_length": config.text.max_length,
        "prefix": config.text.prefix,
        "pad_id": pad,
        "has_types": (values.get("type_vocab_size") or 0) > 1,
        "vocabulary": config.text.vocabulary,
        "vocabulary_margin": config.text.vocabulary_margin,
    }


def read_config(folder: Path) -> dict[str, Any]:
    """Return the folder's config.json.

    Raises:
        DataError: it is missing, or no transformers configuration.
    """
    path = folder / CONFIG
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"model.weights: {folder} holds no {CONFIG}", hint="give a folder that transformers' save_pretrained wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"model.weights: {path} cannot be read ({error})") from error
    if not isinstance(values, dict) or "model_type" not in values:
        raise DataError(f"model.weights: {path} names no model_type, so it is no transformers configuration")
    return values

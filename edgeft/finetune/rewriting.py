"""Training texts that are augmented anew in every epoch: from rows to the tokens of their changed texts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeft.core.atomic import write_atomic
from edgeft.core.digest import sha256_json, sha256_tree
from edgeft.core.events import Progress
from edgeft.core.stage import Context
from edgeft.data.dataset import Dataset
from edgeft.data.draws import sample_seeds
from edgeft.data.text.augment import TextAugmentation, table_synonyms, wordnet_synonyms
from edgeft.data.text.augment_config import TextAugment
from edgeft.finetune.feeds import Rewrite
from edgeft.finetune.sampling import Rows
from edgeft.runtime.text import Text, padded

_TRANSLATED = "translated.json"


def rewriting(ctx: Context, data: Dataset, config: TextAugment, sources: Mapping[str, Path]) -> Rewrite:
    """Return what augments and tokenizes training rows of `data`.

    Args:
        ctx: seed, progress, and a workspace that keeps translations.
        data: of texts.
        config: how they are changed.
        sources: by role; "synonyms", "there" and "back" are what `config` names.

    Raises:
        DataError: synonyms or translation models cannot be read.
    """
    synonyms, seed, train = None, ctx.seed_for("augment"), data.indices("train")
    if config.synonyms:
        place = sources.get("synonyms", Path(config.table or config.wordnet or ""))
        synonyms = table_synonyms(place) if config.table is not None else wordnet_synonyms(place)
    augment, encoder = TextAugmentation(config, synonyms), data.encoder()
    plain: dict[int, Text] = {int(row): data.rows[int(row)].source for row in train}
    others = _translated(ctx, list(plain.values()), config, sources) if config.back_translate else []
    said_otherwise = dict(zip(plain, others, strict=False))

    def rewrite(rows: Rows, epoch: int) -> Mapping[str, npt.NDArray[np.int64]]:
        texts = []
        for row, own in zip(rows.tolist(), sample_seeds(seed, epoch, rows).tolist(), strict=True):
            draw = np.random.default_rng((own, 1)).random()
            text = said_otherwise[row] if draw < config.back_translate else plain[row]
            texts.append(augment(text, own))
        return padded(encoder.tokens(texts), encoder.contract)

    return rewrite


def _translated(ctx: Context, texts: Sequence[Text], config: TextAugment, sources: Mapping[str, Path]) -> list[Text]:
    """Return each text said in other words; what a killed run translated is kept."""
    from edgeft.data.text.translate import back_translations  # brings transformers' encoder-decoders

    there, back = (
        sources.get(role, Path(name)) for role, name in zip(("there", "back"), config.translators or (), strict=True)
    )
    singles = [part for text in texts for part in ((text,) if isinstance(text, str) else text)]
    path = ctx.workspace / _TRANSLATED
    key = sha256_json(
        {"texts": singles, "models": [sha256_tree(folder) if folder.is_dir() else "" for folder in (there, back)]}
    )
    kept = json.loads(path.read_bytes()) if path.is_file() else {}
    if kept.get("key") != key:
        found = back_translations(
            singles, there, back, lambda done, total: ctx.emit(Progress("back-translation", done, total))
        )
        kept = {"key": key, "texts": found}
        write_atomic(path, json.dumps(kept, ensure_ascii=False))
    words = iter(kept["texts"])
    return [next(words) if isinstance(text, str) else (next(words), next(words)) for text in texts]

"""Training texts that are augmented anew in every epoch: from rows to the tokens of their changed texts."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeft.data.dataset import Dataset
from edgeft.data.draws import sample_seeds
from edgeft.data.text.augment import TextAugmentation, table_synonyms, wordnet_synonyms
from edgeft.data.text.augment_config import TextAugment
from edgeft.finetune.feeds import Rewrite
from edgeft.finetune.sampling import Rows
from edgeft.runtime.text import padded


def rewriting(data: Dataset, config: TextAugment, sources: Mapping[str, Path], seed: int) -> Rewrite:
    """Return what augments and tokenizes rows of `data`.

    Args:
        data: of texts.
        config: how they are changed.
        sources: by role; "synonyms" is the table or the database that `config` names.
        seed: of the augmentation.

    Raises:
        DataError: the synonyms cannot be read.
    """
    synonyms = None
    if config.synonyms:
        place = sources.get("synonyms", Path(config.table or config.wordnet or ""))
        synonyms = table_synonyms(place) if config.table is not None else wordnet_synonyms(place)
    augment, encoder = TextAugmentation(config, synonyms), data.encoder()

    def rewrite(rows: Rows, epoch: int) -> Mapping[str, npt.NDArray[np.int64]]:
        seeds = sample_seeds(seed, epoch, rows)
        texts = [augment(data.rows[int(row)].source, int(own)) for row, own in zip(rows, seeds, strict=True)]
        return padded(encoder.tokens(texts), encoder.contract)

    return rewrite

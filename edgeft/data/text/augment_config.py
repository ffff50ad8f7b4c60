"""What the recipe's `finetune.augment_text` says; pydantic and stdlib only."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from edgeft.config import Config

Share = Annotated[float, Field(ge=0.0, le=0.5)]


class TextAugment(Config):
    """Each training text is changed anew in every epoch, word by word; the default changes nothing."""

    synonyms: Share = 0.0
    """Share of the words that become another word for the same, where one is known."""
    table: str | None = None
    """Where `synonyms` come from: a CSV or TSV table, each line a word and others for it."""
    wordnet: str | None = None
    """Or a folder with a WordNet database, e.g. /usr/share/wordnet of Debian's wordnet-base."""
    delete: Share = 0.0
    """Share of the words that are left out; one always stays."""
    swap: Share = 0.0
    """Share of the words that change places with the next."""

    back_translate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the texts that are said in other words, by way of another language; translated once, before training."""
    translators: tuple[str, str] | None = None
    """Folders of the two translation models: into the other language, and back."""

    @property
    def changes(self) -> bool:
        """Whether anything is changed."""
        return bool(self.synonyms or self.delete or self.swap or self.back_translate)

    @model_validator(mode="after")
    def _names_its_sources(self) -> Self:
        if self.synonyms and (self.table is None) == (self.wordnet is None):
            msg = "synonyms need one source: table or wordnet"
            raise ValueError(msg)
        if self.back_translate and self.translators is None:
            msg = "back_translate needs translators: [there, back]"
            raise ValueError(msg)
        return self

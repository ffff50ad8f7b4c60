"""What the recipe's `data:` block says about texts; pydantic and stdlib only, so that reading a recipe stays quick.

data:
method: text
source: reviews.csv                   # CSV, TSV, JSON lines or Parquet
columns: {text: review, label: "stars >= 4 -> positive else negative"}
"""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from edgeft.config import Config
from edgeft.data.config import LabelColumns, LabelledConfig


class TextInputConfig(Config):
    """The model's input: the fields of `edgeft.runtime.text.TextContract`."""

    max_length: PositiveInt
    """Tokens at most, special ones included."""
    prefix: str
    """Text put before each."""
    pad_id: int
    """Token that fills shorter rows."""
    has_types: bool
    """Whether the model tells the first text of a pair from the second by `token_type_ids`."""
    vocabulary: Literal["all", "used"] = "all"
    """See `edgeft.models.config.TextOptions`."""
    vocabulary_margin: NonNegativeFloat = 0.0
    """Likewise."""


class TextColumns(LabelColumns):
    """Which columns of the table mean what."""

    text: str | None = None
    """Column with the text; default: text, sentence, review, comment, content or body."""
    pair: str | None = None
    """Column with a second text that is judged together with the first."""


class TextDataConfig(LabelledConfig):
    """The `data:` block of texts."""

    source: str
    """A CSV, TSV or whitespace-separated table, JSON lines, a Parquet table, or `package:NAME/path`."""
    columns: TextColumns = TextColumns()
    """Which columns mean what."""
    duplicates: Literal["drop", "refuse", "report"] = "drop"
    """What happens to texts that stand twice, case and blanks aside: `drop` keeps the first, and none where labels
    contradict each other; `refuse` is an error; `report` only counts them. Before the division into splits."""
    input: TextInputConfig | None = None
    """The model's input; filled in from `model:`, never written in a recipe."""

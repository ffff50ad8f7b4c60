"""Which model a recipe fine-tunes: the `model:` block. Imports pydantic and the standard library only."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, StringConstraints, model_validator

from edgeft.config import Config

Pixels = Annotated[float, Field(ge=0.0, le=255.0)]
Spread = Annotated[float, Field(gt=0.0, le=65025.0)]


class InputOverride(Config):
    """What to change in the input contract that the model was pretrained with; None keeps the model's own value."""

    height: PositiveInt | None = None
    """Pixels."""
    width: PositiveInt | None = None
    """Pixels."""
    resize: Literal["squash", "shorter_side"] | None = None
    """`squash`: straight to (height, width). `shorter_side`: scale the shorter side, then crop the centre."""
    resize_to: PositiveInt | None = None
    """Length of the shorter side before the crop, in pixels; only with `shorter_side`."""
    filter: Literal["bilinear", "bicubic", "lanczos"] | None = None
    """Resampling filter."""
    mean: tuple[Pixels, Pixels, Pixels] | None = None
    """RGB, in 0..255 pixel units: x = (pixel - mean) / std."""
    std: tuple[Spread, Spread, Spread] | None = None
    """RGB, in 0..255 pixel units."""


class TextOptions(Config):
    """How a text encoder is used; of no interest to images."""

    max_length: Annotated[int, Field(ge=8)] = 128
    """Tokens at most, special ones included; longer texts are cut at the end."""
    prefix: str = ""
    """Text put before each text, as the model was pretrained with, e.g. "query: "."""
    pooling: Literal["mean", "first"] = "mean"
    """What the head is given: the mean over the tokens, or the first token."""
    vocabulary: Literal["all", "used"] = "all"
    """`used` drops the embeddings of tokens that training texts do not need: what is kept besides are special tokens,
    single characters in their scripts, and a margin. Training texts keep their tokens exactly."""
    vocabulary_margin: NonNegativeFloat = 0.25
    """Of `used`: more tokens to keep, the pretraining's most frequent, as a share of those in training texts."""


class ModelConfig(Config):
    """A pretrained architecture, where its weights come from, and what changes."""

    base: Annotated[
        str,
        StringConstraints(pattern=r"^((timm|torchvision)/[A-Za-z0-9_.\-]+|transformers(/[A-Za-z0-9_.\-]+){0,2})$"),
    ]
    """`timm/NAME` or `torchvision/NAME`; for texts `transformers` (`weights` names a folder) or `transformers/ORG/NAME`
    (with `weights: hub`)."""
    weights: str | None = None
    """`package:NAME/path`, a path (a file; for texts a folder that save_pretrained wrote), `hub` (the library downloads
    its own: the only case that opens a socket), or null."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability of dropping a feature in front of the classifier while training."""
    input: InputOverride = InputOverride()
    """Overrides of the model's own input contract."""
    text: TextOptions = TextOptions()
    """How a text encoder is used."""

    @model_validator(mode="after")
    def _texts_have_weights(self) -> Self:
        if self.takes_texts and self.weights is None:
            msg = "a text encoder needs weights: a folder, package:NAME/path, or hub with transformers/ORG/NAME"
            raise ValueError(msg)
        if self.takes_texts and self.weights == "hub" and not self.architecture:
            msg = "weights: hub needs the model's name: base: transformers/ORG/NAME"
            raise ValueError(msg)
        return self

    @property
    def takes_texts(self) -> bool:
        """Whether its input is text."""
        return self.library == "transformers"

    @property
    def library(self) -> str:
        """`timm`, `torchvision` or `transformers`."""
        return self.base.partition("/")[0]

    @property
    def architecture(self) -> str:
        """The architecture's name inside its library."""
        return self.base.partition("/")[2]

"""Which model a recipe fine-tunes: the `model:` block. Imports pydantic and the standard library only."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, StringConstraints

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


class ModelConfig(Config):
    """A pretrained architecture, where its weights come from, and what changes."""

    base: Annotated[str, StringConstraints(pattern=r"^(timm|torchvision)/[A-Za-z0-9_.\-]+$")]
    """`timm/NAME` or `torchvision/NAME`."""
    weights: str | None = None
    """`package:NAME/path`, a file path, `hub` (timm downloads its own: the only case that opens a socket), or null."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability of dropping a feature in front of the classifier while training."""
    input: InputOverride = InputOverride()
    """Overrides of the model's own input contract."""

    @property
    def library(self) -> str:
        """`timm` or `torchvision`."""
        return self.base.partition("/")[0]

    @property
    def architecture(self) -> str:
        """The architecture's name inside its library."""
        return self.base.partition("/")[2]

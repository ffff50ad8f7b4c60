"""Configs of the stages that the engine itself runs: choose, lower, decide, verify. Pydantic and stdlib only."""

from typing import Annotated, Any, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from edgeft.config import Config
from edgeft.core.metrics import Metric


class ChooseConfig(Config):
    """Which candidate ships: the fastest that holds the margin on validation."""

    metric: Metric = "accuracy"
    """What the margin is on."""
    max_drop_pp: PositiveFloat = 2.0
    """The margin in percentage points."""
    target: str = "onnx"
    """The runtime that the choice is for."""
    threads: PositiveInt = 1
    """Intra-op threads of the timing."""
    rounds: Annotated[int, Field(ge=0)] = 9
    """Interleaved rounds, two fresh processes per candidate in each; 0 times nothing and takes the smallest file."""
    samples: Annotated[int, Field(ge=5)] = 20
    """Timed inferences per process."""


class ProposeConfig(Config):
    """Who is worth teaching: the settings of `distill:`, and for which runtime."""

    distill: dict[str, Any]
    """The whole block, its defaults filled in."""
    export: dict[str, Any] = Field(default_factory=dict)
    """What the recipe wrote of it."""
    compress: dict[str, Any] = Field(default_factory=dict)
    """What the recipe wrote of it; candidates are quantized so, but for training and `search`."""
    target: str = "onnx"
    """The runtime that is timed."""
    threads: PositiveInt = 1
    """Intra-op threads of the timing."""


class LowerConfig(Config):
    """For which runtime the chosen candidate is lowered."""

    target: str = "onnx"
    """Name of the exporter."""


Rate = Annotated[float, Field(gt=0, lt=1)]


class ArgmaxConfig(Config):
    """The class with the highest score is decided."""


class ThresholdConfig(Config):
    """A part is good where its score says so surely enough; needs `data.ok_class`.

    With one limit there is one threshold. With both, what cannot be decided within both is for REVIEW by a person.
    """

    max_escape: Rate | None = None
    """Largest share of bad parts that may pass as good, on average over parts like those of validation."""
    max_overkill: Rate | None = None
    """Largest share of good parts that may be stopped without a review, on average likewise."""

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.max_escape is None and self.max_overkill is None:
            msg = "needs max_escape or max_overkill, e.g. {method: threshold, max_escape: 0.02}"
            raise ValueError(msg)
        return self


class VerifyConfig(Config):
    """What the shipped model is held against on the test split."""

    metric: Metric = "accuracy"
    """What the margin is on."""
    max_drop_pp: PositiveFloat = 2.0
    """Margin in percentage points: the drop's interval must stay within it."""
    max_drop_from_teacher_pp: PositiveFloat | None = None
    """Margin of the drop from a student's teacher to what ships; null gates nothing."""
    target: str = "onnx"
    """Name of the exporter whose runtime is checked."""
    max_escape: Rate | None = None
    """Limit of the escape rate, where the decisions were to hold one."""
    max_overkill: Rate | None = None
    """Limit of the overkill rate, likewise."""
    resamples: Annotated[int, Field(ge=100)] = 2000
    """Bootstrap resamples of every interval."""
    thumbnails: Annotated[int, Field(ge=0)] = 64
    """How many changed decisions get a picture; all of them are listed."""

"""Configs of the stages that the engine itself runs: choose, lower, verify. Imports pydantic and stdlib only."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from edgeft.config import Config

Metric = Literal["accuracy", "balanced_accuracy", "macro_f1", "auroc"]


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


class LowerConfig(Config):
    """For which runtime the chosen candidate is lowered."""

    target: str = "onnx"
    """Name of the exporter."""


class VerifyConfig(Config):
    """What the shipped model is held against on the test split."""

    metric: Metric = "accuracy"
    """What the margin is on."""
    max_drop_pp: PositiveFloat = 2.0
    """Margin in percentage points: the drop's interval must stay within it."""
    target: str = "onnx"
    """Name of the exporter whose runtime is checked."""
    resamples: Annotated[int, Field(ge=100)] = 2000
    """Bootstrap resamples of every interval."""
    thumbnails: Annotated[int, Field(ge=0)] = 64
    """How many changed decisions get a picture; all of them are listed."""

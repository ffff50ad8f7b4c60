"""The recipe as frozen objects: what `recipe.yaml` says, checked, with defaults.

Blocks that belong to a method (`data`, `finetune`, `distill`, `export`, `compress`, `decide`) hold the method and the
values written for it; the method's own config class checks them. The engine's blocks (`lower`, `verify`, `bundle`) are
the classes below.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, StringConstraints, field_validator

from edgeft.config import Config
from edgeft.core.metrics import Metric
from edgeft.core.stage import Json, Method

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class LowerBlock(Config):
    """Which runtimes the artifact is for."""

    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("onnx",)
    """Names of exporters. The first is what the bundle runs in; every other has a bundle of its own, NAME-TARGET."""

    @field_validator("targets")
    @classmethod
    def _once(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(targets)) < len(targets):
            msg = "a target stands there twice"
            raise ValueError(msg)
        return targets


class AccuracyBar(Config):
    """How much of the task's metric compression may cost."""

    metric: Metric = "accuracy"
    """What is compared, on the test split, paired."""
    max_drop_pp: PositiveFloat = 2.0
    """Margin in percentage points: the interval's worse end must stay within it."""
    max_drop_from_teacher_pp: PositiveFloat | None = None
    """The same from a student's teacher to what ships; null tells the drop and gates nothing."""


class LatencyBar(Config):
    """How fast the artifact must be on this machine: batch 1, the model alone."""

    vs_fp32: Literal["faster", "not_slower"] | None = "not_slower"
    """Against the same graph in float: `faster` holds the ratio's interval below 1, `not_slower` below 1.05."""
    p99_ms: PositiveFloat | None = None
    """Limit for the 99th percentile, in milliseconds."""
    threads: PositiveInt = 1
    """CPU threads inside an operator."""
    rounds: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (9, 15, 25, 40)
    """Fresh-process rounds; while the verdict is open, the next larger number is tried."""
    samples_per_round: Annotated[int, Field(ge=5)] = 50
    """Inferences timed in each process."""


class VerifyBlock(Config):
    """The gates."""

    accuracy: AccuracyBar = AccuracyBar()
    """Accuracy gate."""
    latency: LatencyBar = LatencyBar()
    """Latency gate."""


class BundleBlock(Config):
    """The artifact."""

    name: Identifier | None = None
    """Name of the bundle and of its folder; default: the recipe's folder."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block that a method checked: the method, and what the recipe wrote for it."""

    method: Method
    values: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A checked recipe.

    Args:
        version: of the recipe's format.
        seed: all randomness of a run is derived from it.
        data: where the images are.
        model: a `edgeft.models.config:ModelConfig`.
        finetune: how it is trained.
        distill: how a student learns from it; None where it ships itself.
        export: how it becomes a graph.
        compress: how the graph is made small.
        lower: for which runtime.
        decide: how scores become decisions.
        verify: the gates.
        bundle: the artifact.
        path: the recipe file, or the folder of bare data.
        folder: what relative paths are relative to.
        text: the file as it was read.
        smoke: whether it was shrunk.
    """

    version: int
    seed: int
    data: Block
    model: BaseModel
    finetune: Block
    distill: Block | None
    export: Block
    compress: Block
    lower: LowerBlock
    decide: Block
    verify: VerifyBlock
    bundle: BundleBlock
    path: Path
    folder: Path
    text: str
    smoke: bool = False

    @property
    def name(self) -> str:
        """The bundle's name: the recipe's, or its folder's with everything unusual as a dash."""
        kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in self.folder.resolve().name)
        return self.bundle.name or kept.strip("._-")[:64] or "bundle"

    @property
    def bundle_folder(self) -> Path:
        """Where the bundle goes unless the command line names another place."""
        return self.folder / "dist" / self.name


def target_folders(recipe: Recipe, bundle: Path) -> dict[str, Path]:
    """Return where each target's bundle goes: the first one's `bundle`, the others' beside it."""
    first, *others = recipe.lower.targets
    return {first: bundle, **{target: bundle.with_name(f"{bundle.name}-{target}") for target in others}}


def failed_folder(bundle: Path) -> Path:
    """Return where the bundle goes when a gate fails: beside the place it did not earn."""
    return bundle.with_name(f"{bundle.name}.failed")

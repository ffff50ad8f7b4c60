"""What the recipe's `data:` block says; pydantic and stdlib only, so that reading a recipe stays quick.

    data:
      source: labels.csv                    # a table, or a folder of class folders
      columns:
        input: file
        label: "probability >= 0.5 -> defective else functional"
        group: "block(index, 32)"
        slices: {cell: type}
      ok_class: functional
      split: {train: 0.6, val: 0.2, test: 0.2, by: group, seed: 0}

Expressions in `columns` are described in `edgeft.data.expression`.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from edgeft.config import Config

Share = Annotated[float, Field(gt=0, lt=1)]
DOMAIN = "domain"
"""Name of the slice that `mix` goes by."""


class InputConfig(Config):
    """The model's input: the fields of `edgeft.runtime.preprocess.InputContract`."""

    height: PositiveInt
    """Rows of the model's input."""
    width: PositiveInt
    """Columns of the model's input."""
    resize: Literal["squash", "shorter_side"]
    """`squash`: straight to (height, width); `shorter_side`: shorter side to `resize_to`, then a centre crop."""
    resize_to: PositiveInt | None = None
    """Pixels of the shorter side; only for `shorter_side`."""
    filter: Literal["bilinear", "bicubic", "lanczos"]
    """Resampling filter."""
    mean: tuple[float, float, float]
    """Per RGB channel, in 0..255 pixel units."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    """Per RGB channel, in 0..255 pixel units."""


class LabelColumns(Config):
    """Which columns of the table mean what, whatever the input is."""

    names: tuple[str, ...] | None = None
    """Column names, for a table without a header line."""
    label: str | None = None
    """Column or expression that gives the class; default: label, class, category or target."""
    group: str | None = None
    """Column or expression; rows of one group never stand in two splits."""
    split: str | None = None
    """Column or expression that gives train, val or test; then the shares in `split` are not used to divide."""
    slices: dict[str, str] = Field(default_factory=dict)
    """Name -> column or expression, e.g. {camera: camera_id}: accuracy is told for each of its values, too."""


class ColumnsConfig(LabelColumns):
    """Which columns of the table mean what; a folder source has the columns `path`, `file`, `class`."""

    input: str | None = None
    """Column with the image's path, relative to `images`; default: path, file, filename, image or image_path."""


class SplitConfig(Config):
    """How the images are divided into train, val and test."""

    train: Share = 0.6
    """Share of the images."""
    val: Share = 0.2
    """Share of the images."""
    test: Share = 0.2
    """Share of the images."""
    by: Literal["group", "image"] = "group"
    """`group` keeps a group in one split; `image` ignores groups (for comparison with published random splits)."""
    seed: NonNegativeInt = 0
    """Which division, of all equally good ones."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Cross-validation: test is one of `folds` disjoint parts, the rest is divided by train : val."""
    fold: NonNegativeInt = 0
    """Which part is test, 0 .. folds - 1."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        total = self.train + self.val + self.test
        if not math.isclose(total, 1, abs_tol=1e-6):
            msg = f"train + val + test = {total:g}, expected 1"
            raise ValueError(msg)
        if self.fold >= (self.folds or 1):
            msg = f"fold {self.fold} of {self.folds} folds: expected 0 .. {(self.folds or 1) - 1}"
            raise ValueError(msg)
        return self


class NearDuplicatesConfig(Config):
    """When two different files count as the same picture: both bars must be met.

    On 2,624 look-alike solar cells the defaults name no pair, and they find 99.8 % of copies saved as JPEG quality 75
    or scaled by half, 96 % of those raised in contrast, none that was cropped or turned (see `edgeft.data.hashing`).
    """

    hamming: Annotated[int, Field(ge=0, le=64)] = 8
    """Largest number of the 64 bits of the perceptual hash that differ."""
    correlation: Annotated[float, Field(gt=0, le=1)] = 0.999
    """Smallest correlation of the two 32x32 grey thumbnails."""


class LabelledConfig(Config):
    """What every `data:` block says about classes and splits."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """The table's delimiter; default: found from the first lines; " " stands for any run of blanks."""
    classes: tuple[str, ...] | None = None
    """Class order; default: sorted. The order is frozen here and travels to the device."""
    ok_class: str | None = None
    """The class that means "nothing found"; with two classes, the other one is the positive class."""
    split: SplitConfig = SplitConfig()
    """How the rows are divided."""
    limit: PositiveInt | dict[Literal["train", "val", "test"], Share] | None = None
    """At most so many rows of each class in each split, for a quick trial. {train: 0.25} takes a quarter of each class
    to learn from and judges by all of val and test: what would fewer labels have given?"""
    unlabelled: str | None = None
    """More rows, without labels, that a student learns from (`distill:`): a folder of images, or a table of texts."""
    unlabelled_limit: PositiveInt | None = None
    """At most so many of them, spread evenly over the folder or table, for a quick trial."""
    mix: dict[str, Share] | None = None
    """Share of an epoch's training rows by the value of the slice `domain`, e.g. {target: 0.7, source: 0.3} with
    `columns: {slices: {domain: COLUMN}}`; rows of a small domain are repeated, of a large one cut."""

    @model_validator(mode="after")
    def _mixes_domains(self) -> Self:
        if self.mix is None:
            return self
        if not math.isclose(sum(self.mix.values()), 1, abs_tol=1e-6):
            msg = f"mix: shares add up to {sum(self.mix.values()):g}, expected 1"
            raise ValueError(msg)
        if DOMAIN not in getattr(getattr(self, "columns", None), "slices", {}):
            msg = f"mix: which domain a row is of is not said; add columns: {{slices: {{{DOMAIN}: COLUMN}}}}"
            raise ValueError(msg)
        return self

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len(set(classes)) != len(classes):
            msg = f"a class stands twice in {list(classes)}"
            raise ValueError(msg)
        return classes


class DataConfig(LabelledConfig):
    """The `data:` block of images."""

    source: str
    """A folder of class folders (or of train/val/test folders of class folders), a CSV, TSV or whitespace-separated
    table, a Parquet table, JSON lines, or `package:NAME/path`."""
    images: str | None = None
    """Folder that the table's paths are relative to; default: the source folder, or the table's folder."""
    columns: ColumnsConfig = ColumnsConfig()
    """Which columns mean what."""
    duplicates: Literal["drop", "refuse", "report"] = "drop"
    """What happens to copies of one picture in two splits: `drop` takes the copy out of train (or val) and never
    touches test; `refuse` is an error; `report` only names the pairs."""
    near_duplicates: NearDuplicatesConfig = NearDuplicatesConfig()
    """When two different files count as the same picture."""
    input: InputConfig | None = None
    """The model's input; filled in from `model:`, never written in a recipe."""

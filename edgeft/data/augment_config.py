"""What the recipe's `augment:` says; pydantic and stdlib only.

    augment: inspection                                                    # a preset
    augment: [horizontal_flip, {crop: {scale: [0.8, 1.0]}}, {blur: {p: 0.2}}]   # steps in order, each with its defaults

Names and parameters follow torchvision.transforms.v2. `[]` or `none` is no augmentation.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, NonNegativeFloat, PositiveFloat
from pydantic_core import CoreSchema

from edgeft.config import Config

Probability = Annotated[float, Field(ge=0, le=1)]


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        msg = f"range {list(value)}: the first value is above the second"
        raise ValueError(msg)
    return value


def _odd(value: int) -> int:
    if value % 2 == 0:
        msg = f"{value} is even, expected an odd kernel size"
        raise ValueError(msg)
    return value


PositiveRange = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascending)]
NonNegativeRange = Annotated[tuple[NonNegativeFloat, NonNegativeFloat], AfterValidator(_ascending)]


class HorizontalFlip(Config):
    """Mirror left and right."""

    name: Literal["horizontal_flip"] = "horizontal_flip"
    p: Probability = 0.5
    """Share of images that are flipped."""


class VerticalFlip(Config):
    """Mirror top and bottom."""

    name: Literal["vertical_flip"] = "vertical_flip"
    p: Probability = 0.5
    """Share of images that are flipped."""


class Rotate90(Config):
    """Turn by 0, 90, 180 or 270 degrees, each equally likely; only 0 and 180 where the input is not square."""

    name: Literal["rotate90"] = "rotate90"
    p: Probability = 1.0
    """Share of images for which a turn is drawn."""


class Crop(Config):
    """Cut a random part and scale it to the input (RandomResizedCrop, bilinear, antialiased)."""

    name: Literal["crop"] = "crop"
    scale: Annotated[tuple[PositiveFloat, Annotated[float, Field(gt=0, le=1)]], AfterValidator(_ascending)] = (0.8, 1.0)
    """Range of the part's share of the area."""
    ratio: PositiveRange = (3 / 4, 4 / 3)
    """Range of the part's width / height."""
    p: Probability = 1.0
    """Share of images that are cropped."""


class Blur(Config):
    """Gaussian blur (GaussianBlur)."""

    name: Literal["blur"] = "blur"
    kernel_size: Annotated[int, Field(ge=3, le=63), AfterValidator(_odd)] = 7
    """Side of the kernel in pixels, odd."""
    sigma: PositiveRange = (0.1, 1.5)
    """Range of the standard deviation in pixels."""
    p: Probability = 0.2
    """Share of images that are blurred."""


class GaussianNoise(Config):
    """Add independent normal noise to every value (GaussianNoise)."""

    name: Literal["gaussian_noise"] = "gaussian_noise"
    sigma: NonNegativeRange = (0.0, 0.03)
    """Range of the standard deviation, as a share of the full range 0..255."""
    p: Probability = 0.5
    """Share of images that get noise."""


class Elastic(Config):
    """Bend the image smoothly (ElasticTransform)."""

    name: Literal["elastic"] = "elastic"
    alpha: NonNegativeFloat = 50.0
    """Strength of the displacement."""
    sigma: PositiveFloat = 5.0
    """Smoothness of the displacement in pixels."""
    p: Probability = 0.2
    """Share of images that are bent."""


class Colour(Config):
    """Jitter brightness, contrast, saturation and hue, in this order (ColorJitter without its random order)."""

    name: Literal["colour"] = "colour"
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The factor is drawn from 1 - value .. 1 + value."""
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The factor is drawn from 1 - value .. 1 + value."""
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The factor is drawn from 1 - value .. 1 + value; no effect on grey images."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """The shift is drawn from -value .. value of the colour circle; no effect on grey images."""
    p: Probability = 1.0
    """Share of images that are jittered."""


AugmentStep: TypeAlias = HorizontalFlip | VerticalFlip | Rotate90 | Crop | Blur | GaussianNoise | Elastic | Colour
"""One augmentation with its parameters."""

STEPS: tuple[type[AugmentStep], ...] = (
    HorizontalFlip,
    VerticalFlip,
    Rotate90,
    Crop,
    Blur,
    GaussianNoise,
    Elastic,
    Colour,
)
NAMES: tuple[str, ...] = tuple(step.model_fields["name"].default for step in STEPS)
PRESETS: Mapping[str, tuple[AugmentStep, ...]] = {
    "none": (),
    "inspection": (HorizontalFlip(), VerticalFlip(), Rotate90(), Colour(brightness=0.1, contrast=0.1)),
}
"""`inspection`: parts without a natural up, under a lamp that drifts a little."""


def _unknown(kind: str, name: str, known: Sequence[str]) -> ValueError:
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    meant = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
    return ValueError(f"unknown {kind} {name!r}{meant} (known: {', '.join(known)})")


def _parse_step(step: object) -> object:
    if isinstance(step, STEPS):
        return step
    if isinstance(step, str):
        step = {step: {}}
    if isinstance(step, Mapping) and "name" not in step:
        if len(step) != 1:
            msg = f"each step is one name with its parameters, found {list(step)}"
            raise ValueError(msg)
        name, parameters = next(iter(step.items()))
        if not isinstance(parameters, Mapping | None):
            msg = f"{name}: expected parameters such as {{p: 0.5}}, found {parameters!r}"
            raise ValueError(msg)
        step = {"name": name, **(parameters or {})}
    if isinstance(step, Mapping) and step["name"] not in NAMES:
        raise _unknown("augmentation", str(step["name"]), NAMES)
    return step


def _parse(value: object) -> object:
    """Turn a preset's name, or a list of steps in short form, into a tuple of steps."""
    if isinstance(value, str):
        if value not in PRESETS:
            raise _unknown("augmentation preset", value, tuple(PRESETS))
        return PRESETS[value]
    if isinstance(value, Sequence):
        return tuple(_parse_step(step) for step in value)
    return value


class _ShortForm:
    """The JSON Schema of what a recipe may write, for editors; the parsed form is never written by hand."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        del schema, handler
        steps: list[dict[str, Any]] = [{"enum": list(NAMES)}]
        for name, step in zip(NAMES, STEPS, strict=True):
            parameters = step.model_json_schema()
            parameters["properties"].pop("name")
            steps.append({"type": "object", "properties": {name: parameters}, "additionalProperties": False})
        return {"anyOf": [{"enum": list(PRESETS)}, {"type": "array", "items": {"anyOf": steps}}]}


AugmentSpec: TypeAlias = Annotated[
    tuple[Annotated[AugmentStep, Field(discriminator="name")], ...],
    BeforeValidator(_parse),
    _ShortForm(),
]
"""The type of a config field such as `augment: AugmentSpec = ()`; what `edgeft.data.augment.build` takes."""

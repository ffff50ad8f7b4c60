"""What timm and torchvision say about their architectures' inputs, in edgeft's units. Imports both libraries."""

import math

import timm
import torch
import torchvision.models
from timm.models import get_pretrained_cfg
from torchvision.transforms import InterpolationMode

from edgeft.models.architectures import build
from edgeft.models.probing import at_rest
from edgeft.runtime.preprocess import Filter, InputContract

_LEVELS = 255.0
_LITE = "tf_efficientnet_lite"
_LITE_MEAN, _LITE_STD = 127.0, 128.0
"""EfficientNet-Lite was trained on (pixel - 127) / 128; timm's .5 and .5 round that to 127.5 and 127.5."""


def contract_of(library: str, architecture: str) -> InputContract | None:
    """Return the architecture's input contract, or None where the library does not know it."""
    return _timm(architecture) if library == "timm" else _torchvision(architecture)


def takes(library: str, architecture: str, height: int, width: int) -> bool:
    """Return whether the architecture runs on images of that size: positions of patches may fit its own alone.

    Where the library does not tell for sure, a network with random weights is asked.
    """
    if library == "torchvision":
        sure = not architecture.startswith("vit_")
    else:
        config = get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
        sure = config is None or not config.fixed_input_size
    if sure:
        return True
    module = build(library, architecture, dropout=0.0, hub=False)
    try:
        with at_rest(module):
            module(torch.zeros(1, 3, height, width))
    except (AssertionError, RuntimeError):
        return False
    return True


def architectures(library: str) -> list[str]:
    """Return every image classification architecture of `library`."""
    return list(timm.list_models() if library == "timm" else torchvision.models.list_models(module=torchvision.models))


def _timm(architecture: str) -> InputContract | None:
    config = get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    if config is None:
        return None
    _, height, width = config.input_size
    squash = config.crop_mode == "squash"
    lite = architecture.startswith(_LITE)
    return InputContract(
        height=height,
        width=width,
        resize="squash" if squash else "shorter_side",
        resize_to=None if squash else math.floor(max(height, width) / min(config.crop_pct, 1.0)),
        filter="bilinear" if config.interpolation == "bilinear" else "bicubic",
        mean=(_LITE_MEAN,) * 3 if lite else _pixel_units(config.mean),
        std=(_LITE_STD,) * 3 if lite else _pixel_units(config.std),
    )


def _torchvision(architecture: str) -> InputContract | None:
    if architecture not in architectures("torchvision"):
        return None
    transforms = torchvision.models.get_model_weights(architecture).DEFAULT.transforms()
    filters: dict[InterpolationMode, Filter] = {InterpolationMode.BILINEAR: "bilinear"}
    return InputContract(
        height=transforms.crop_size[0],
        width=transforms.crop_size[0],
        resize="shorter_side",
        resize_to=max(transforms.resize_size[0], transforms.crop_size[0]),
        filter=filters.get(transforms.interpolation, "bicubic"),
        mean=_pixel_units(transforms.mean),
        std=_pixel_units(transforms.std),
    )


def _pixel_units(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = (round(value * _LEVELS, 6) for value in values)
    return red, green, blue

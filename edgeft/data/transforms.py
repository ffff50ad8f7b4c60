"""Image transforms in place on uint8 batches [N, 3, H, W], with parameters drawn for each sample.

The arithmetic is that of torchvision.transforms.v2.functional. Samples are taken one by one: a sample and its
temporaries stay in the processor's cache, which is several times faster here than whole batches.
"""

import math

import numpy as np
import torch
from torch.nn.functional import conv2d, pad
from torchvision.transforms.v2 import functional

from edgeft.data.draws import Draws

Range = tuple[float, float]

_GREY = torch.tensor([0.299, 0.587, 0.114])
_ATTEMPTS = 10


def flip_(pixels: torch.Tensor, draws: Draws, *, dim: int, p: float) -> None:
    """Mirror along `dim` of a sample (1: top and bottom, 2: left and right)."""
    for i in draws.chosen(0, p):
        pixels[i] = pixels[i].flip(dim)


def rotate90_(pixels: torch.Tensor, draws: Draws, *, p: float) -> None:
    """Turn by 0, 90, 180 or 270 degrees; by 0 or 180 where H and W differ."""
    turns = np.floor(draws.uniform(1) * 4).astype(np.int64)
    if pixels.shape[2] != pixels.shape[3]:
        turns = turns // 2 * 2
    for i in draws.chosen(0, p):
        if turns[i]:
            pixels[i] = torch.rot90(pixels[i], int(turns[i]), (1, 2)).clone()


def crop_(pixels: torch.Tensor, draws: Draws, *, scale: Range, ratio: Range, p: float) -> None:
    """Scale a random part to the whole: RandomResizedCrop, bilinear and antialiased."""
    height, width = pixels.shape[2:]
    boxes = _boxes(draws, height, width, scale, ratio)
    for i in draws.chosen(0, p):
        pixels[i] = functional.resized_crop(pixels[i], *boxes[i], [height, width], antialias=True)


def blur_(pixels: torch.Tensor, draws: Draws, *, kernel_size: int, sigma: Range, p: float) -> None:
    """Blur with a Gaussian kernel whose standard deviation is drawn from `sigma`."""
    sigmas = draws.uniform(1, *sigma)
    for i in draws.chosen(0, p):
        pixels[i] = _to_uint8_(_smooth(pixels[i].float(), kernel_size, float(sigmas[i])))


def gaussian_noise_(pixels: torch.Tensor, draws: Draws, *, sigma: Range, p: float) -> None:
    """Add normal noise whose standard deviation, as a share of 255, is drawn from `sigma`."""
    sigmas = 255 * draws.uniform(1, *sigma)
    for i in draws.chosen(0, p):
        noise = torch.randn(pixels.shape[1:], generator=draws.generator(2, i))
        pixels[i] = _to_uint8_(noise.mul_(float(sigmas[i])).add_(pixels[i]))


def elastic_(pixels: torch.Tensor, draws: Draws, *, alpha: float, sigma: float, p: float) -> None:
    """Move every pixel by a smooth random displacement (Simard et al. 2003); what comes from outside is black."""
    height, width = pixels.shape[2:]
    kernel_size = int(8 * sigma + 1) | 1
    scale = alpha / torch.tensor([width, height])
    for i in draws.chosen(0, p):
        noise = torch.rand((2, height, width), generator=draws.generator(1, i)).mul_(2).sub_(1)
        displacement = _smooth(noise, kernel_size, sigma).permute(1, 2, 0) * scale
        pixels[i] = functional.elastic(pixels[i], displacement.unsqueeze(0), fill=[0.0])


def colour_(
    pixels: torch.Tensor, draws: Draws, *, brightness: float, contrast: float, saturation: float, hue: float, p: float
) -> None:
    """Jitter brightness, contrast, saturation and hue, in this order."""
    gains = draws.uniform(1, 1 - brightness, 1 + brightness)
    blends = draws.uniform(2, 1 - contrast, 1 + contrast)
    keeps = draws.uniform(3, 1 - saturation, 1 + saturation)
    shifts = draws.uniform(4, -hue, hue)
    for i in draws.chosen(0, p):
        if brightness or contrast:
            pixels[i] = _brightness_contrast(pixels[i], float(gains[i]), float(blends[i]))
        if saturation:
            grey = torch.einsum("c,chw->hw", _GREY, pixels[i].float())
            pixels[i] = _to_uint8_(grey.mul_(1 - float(keeps[i])) + float(keeps[i]) * pixels[i])
        if hue:
            pixels[i] = functional.adjust_hue(pixels[i], float(shifts[i]))


def _brightness_contrast(image: torch.Tensor, gain: float, blend: float) -> torch.Tensor:
    """Return clamp(blend * b + (1 - blend) * mean grey of b) with b = clamp(gain * image)."""
    bright = (gain * image).clamp_(max=255)
    grey = float(bright.mean(dim=(1, 2)) @ _GREY)
    return _to_uint8_(bright.mul_(blend).add_((1 - blend) * grey))


def _smooth(image: torch.Tensor, kernel_size: int, sigma: float) -> torch.Tensor:
    """Convolve float32 [C, H, W] with a Gaussian, first down, then across; edges are mirrored."""
    channels, height, width = image.shape
    radius = min(kernel_size // 2, height - 1, width - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    planes = pad(image.contiguous().unsqueeze(1), (radius, radius, radius, radius), mode="reflect")
    return conv2d(conv2d(planes, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1)).view(channels, height, width)


def _to_uint8_(values: torch.Tensor) -> torch.Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8)


def _boxes(draws: Draws, height: int, width: int, scale: Range, ratio: Range) -> list[tuple[int, int, int, int]]:
    """Draw (top, left, height, width) of each sample's part, as RandomResizedCrop does."""
    boxes: list[tuple[int, int, int, int]] = []
    area = height * width * np.stack([draws.uniform(10 + k, *scale) for k in range(_ATTEMPTS)])
    log = math.log(ratio[0]), math.log(ratio[1])
    aspect = np.exp(np.stack([draws.uniform(30 + k, *log) for k in range(_ATTEMPTS)]))
    widths, heights = np.round(np.sqrt(area * aspect)), np.round(np.sqrt(area / aspect))
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    across, down = draws.uniform(1), draws.uniform(2)
    for i in range(len(draws)):
        if fits[:, i].any():
            first = int(fits[:, i].argmax())
            h, w = int(heights[first, i]), int(widths[first, i])
        else:
            h, w = _central(height, width, ratio)
        boxes.append((int(down[i] * (height - h + 1)), int(across[i] * (width - w + 1)), h, w))
    return boxes


def _central(height: int, width: int, ratio: Range) -> tuple[int, int]:
    """Return the largest part whose width / height is within `ratio`."""
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    if width / height > ratio[1]:
        return height, round(height * ratio[1])
    return height, width

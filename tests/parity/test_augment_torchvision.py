"""Each augmentation against torchvision's own functional on the parameters that were drawn."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from edgeft.data.draws import Draws
from edgeft.data.transforms import (
    blur_,
    colour_,
    crop_,
    elastic_,
    flip_,
    gaussian_noise_,
    rotate90_,
)

SEEDS = np.arange(6, dtype=np.uint64) * np.uint64(977)
ONE_LEVEL = 1  # torchvision truncates or rounds to uint8 after other intermediate steps


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (6, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return functional.resize(coarse, [40, 40])


def apply(transform, images: torch.Tensor, **parameters: object) -> torch.Tensor:  # noqa: ANN001 - any transform
    result = images.clone()
    transform(result, Draws(SEEDS, 3), **parameters)
    return result


def assert_within(actual: torch.Tensor, expected: torch.Tensor, levels: int) -> None:
    assert int((actual.int() - expected.int()).abs().max()) <= levels


def test_flips(images: torch.Tensor) -> None:
    assert torch.equal(apply(flip_, images, dim=2, p=1.0), functional.horizontal_flip(images))
    assert torch.equal(apply(flip_, images, dim=1, p=1.0), functional.vertical_flip(images))


def test_quarter_turns(images: torch.Tensor) -> None:
    turned = apply(rotate90_, images, p=1.0)
    turns = set()
    for image, result in zip(images, turned, strict=True):
        matching = [k for k in range(4) if torch.equal(result, functional.rotate(image, 90 * k))]
        assert len(matching) == 1
        turns.add(matching[0])
    assert len(turns) >= 3


def test_blur(images: torch.Tensor) -> None:
    expected = functional.gaussian_blur(images, [7, 7], [1.3, 1.3])
    assert_within(apply(blur_, images, kernel_size=7, sigma=(1.3, 1.3), p=1.0), expected, ONE_LEVEL)


def test_brightness_and_contrast(images: torch.Tensor) -> None:
    draws = Draws(SEEDS, 3)
    gains, blends = draws.uniform(1, 0.7, 1.3), draws.uniform(2, 0.6, 1.4)
    actual = apply(colour_, images, brightness=0.3, contrast=0.4, saturation=0.0, hue=0.0, p=1.0)
    for i, image in enumerate(images):
        bright = functional.adjust_brightness(image, float(gains[i]))
        assert_within(actual[i], functional.adjust_contrast(bright, float(blends[i])), 2 * ONE_LEVEL)


def test_saturation_and_hue(images: torch.Tensor) -> None:
    draws = Draws(SEEDS, 3)
    keeps, shifts = draws.uniform(3, 0.5, 1.5), draws.uniform(4, -0.2, 0.2)
    saturated = apply(colour_, images, brightness=0.0, contrast=0.0, saturation=0.5, hue=0.0, p=1.0)
    shifted = apply(colour_, images, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.2, p=1.0)
    for i, image in enumerate(images):
        assert_within(saturated[i], functional.adjust_saturation(image, float(keeps[i])), ONE_LEVEL)
        assert torch.equal(shifted[i], functional.adjust_hue(image, float(shifts[i])))


def test_noise_has_the_asked_spread() -> None:
    grey = torch.full((6, 3, 64, 64), 128, dtype=torch.uint8)
    noisy = apply(gaussian_noise_, grey, sigma=(0.04, 0.04), p=1.0).float()
    spread = noisy.std(dim=(1, 2, 3))
    np.testing.assert_allclose(spread.numpy(), 0.04 * 255, rtol=0.03)  # 12288 draws: standard error 0.6 %
    np.testing.assert_allclose(noisy.mean(dim=(1, 2, 3)).numpy(), 128, atol=0.4)


def test_no_displacement_is_no_change(images: torch.Tensor) -> None:
    assert_within(apply(elastic_, images, alpha=0.0, sigma=4.0, p=1.0), images, ONE_LEVEL)
    assert not torch.equal(apply(elastic_, images, alpha=60.0, sigma=4.0, p=1.0), images)


def test_crops_are_parts_of_the_image_at_the_asked_size() -> None:
    """On a ramp along x and y, the crop's range of values is its box."""
    ramp = torch.arange(200, dtype=torch.uint8)
    image = torch.stack([ramp.expand(200, 200), ramp.view(-1, 1).expand(200, 200), torch.zeros(200, 200)])
    batch = image.to(torch.uint8).repeat(6, 1, 1, 1)
    cropped = apply(crop_, batch, scale=(0.3, 0.5), ratio=(0.8, 1.25), p=1.0).float()
    width = cropped[:, 0].amax(dim=(1, 2)) - cropped[:, 0].amin(dim=(1, 2)) + 1
    height = cropped[:, 1].amax(dim=(1, 2)) - cropped[:, 1].amin(dim=(1, 2)) + 1
    share, aspect = width * height / 200**2, width / height
    assert share.min() >= 0.28
    assert share.max() <= 0.52
    assert aspect.min() >= 0.76
    assert aspect.max() <= 1.3

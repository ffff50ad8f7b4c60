import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from edgeft.core.errors import UsageError
from edgeft.data.augment import Augmentation, build
from edgeft.data.augment_config import NAMES, AugmentSpec
from edgeft.data.draws import Draws, sample_seeds

EVERYTHING = [*({name: {"p": 1.0}} for name in NAMES if name != "colour"), {"colour": {"hue": 0.1, "saturation": 0.3}}]


def augmentation(written: object) -> Augmentation:
    return build(TypeAdapter(AugmentSpec).validate_python(written))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (8, 3, 24, 24), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("written", ["inspection", *([step] for step in EVERYTHING), EVERYTHING])
def test_a_sample_does_not_depend_on_its_batch(images: torch.Tensor, written: object) -> None:
    augment = augmentation(written)
    indices = [4, 9, 2, 77, 31, 0, 5, 6]
    whole = augment.at(images, sample_seeds(3, 1, indices))
    for order in ([7, 6, 5, 4, 3, 2, 1, 0], [2], [5, 1]):
        part = augment.at(images[order], sample_seeds(3, 1, [indices[i] for i in order]))
        assert torch.equal(part, whole[order])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_input_type_shape_and_layout_are_kept(images: torch.Tensor, memory_format: torch.memory_format) -> None:
    given = images.contiguous(memory_format=memory_format)
    before = given.clone()
    result = augmentation(EVERYTHING)(given, torch.Generator().manual_seed(0))
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    assert result.is_contiguous(memory_format=memory_format)
    assert torch.equal(given, before)


def test_equal_generators_give_equal_images(images: torch.Tensor) -> None:
    augment = augmentation("inspection")
    first, second, other = (augment(images, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_epochs_and_seeds_change_the_images(images: torch.Tensor) -> None:
    augment = augmentation("inspection")
    base = augment.at(images, sample_seeds(0, 0, range(8)))
    assert not torch.equal(base, augment.at(images, sample_seeds(0, 1, range(8))))
    assert not torch.equal(base, augment.at(images, sample_seeds(1, 0, range(8))))


def test_no_steps_change_nothing(images: torch.Tensor) -> None:
    assert torch.equal(augmentation("none")(images, torch.Generator()), images)
    assert torch.equal(augmentation([{"blur": {"p": 0.0}}])(images, torch.Generator()), images)


def test_an_oblong_image_keeps_its_sides() -> None:
    images = torch.arange(2 * 3 * 4 * 6, dtype=torch.uint8).view(2, 3, 4, 6).repeat(8, 1, 1, 1)
    turned = augmentation(["rotate90"]).at(images, sample_seeds(0, 0, range(16)))
    halves = [torch.equal(t, i.rot90(2, (1, 2))) for t, i in zip(turned, images, strict=True)]
    same = [torch.equal(t, i) for t, i in zip(turned, images, strict=True)]
    assert all(a != b for a, b in zip(halves, same, strict=True))
    assert any(halves)
    assert any(same)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 3, 4, 4), torch.float32), ((2, 1, 4, 4), torch.uint8), ((3, 4, 4), torch.uint8)],
)
def test_other_tensors_are_refused(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    with pytest.raises(UsageError, match=r"expected uint8 \[N, 3, H, W\]"):
        augmentation("inspection")(torch.zeros(shape, dtype=dtype), torch.Generator())


def test_draws_are_uniform_and_unrelated() -> None:
    seeds = sample_seeds(0, 0, range(20000))
    assert len(set(seeds.tolist())) == 20000
    columns = np.stack([Draws(seeds, consumer).uniform(k) for consumer in range(3) for k in range(3)])
    assert columns.min() >= 0
    assert columns.max() < 1
    # 20000 uniform draws: the mean has a standard error of .002, a correlation one of .007
    np.testing.assert_allclose(columns.mean(axis=1), 0.5, atol=0.01)
    np.testing.assert_allclose(columns.var(axis=1), 1 / 12, atol=0.003)
    np.testing.assert_allclose(np.corrcoef(columns), np.eye(9), atol=0.03)


def test_chosen_follows_the_probability() -> None:
    draws = Draws(sample_seeds(0, 0, range(20000)), 0)
    assert len(draws.chosen(0, 0.3)) == pytest.approx(6000, abs=300)
    assert draws.chosen(0, 0.0) == []
    assert len(draws.chosen(0, 1.0)) == 20000

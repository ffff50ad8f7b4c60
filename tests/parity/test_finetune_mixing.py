"""Mixup and cutmix against torchvision's, given the same shares and boxes."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from edgeft.finetune import objectives
from edgeft.finetune.mixing import mix

N, CLASSES = 6, 3
IMAGES = torch.randn(N, 3, 20, 28, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])


def soft(transform: v2.Transform, share: float) -> torch.Tensor:
    params = {"labels": LABELS, "batch_size": N, "lam": share, "lam_adj": share, "box": (0, 0, 0, 0)}
    return transform.transform(LABELS, params)  # type: ignore[no-any-return] # torchvision's dict of anything


@pytest.mark.parametrize("seed", range(8))
def test_mixup_is_torchvisions(seed: int) -> None:
    mixed, theirs = mix(IMAGES, LABELS, 0.4, 0.0, seed), v2.MixUp(num_classes=CLASSES)
    params = {"labels": LABELS, "batch_size": N, "lam": mixed.share}
    torch.testing.assert_close(mixed.inputs, theirs.transform(IMAGES, params))
    onehot = torch.eye(CLASSES)
    ours = mixed.share * onehot[LABELS] + (1 - mixed.share) * onehot[mixed.partners]
    torch.testing.assert_close(ours, soft(theirs, mixed.share))


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_is_torchvisions(seed: int) -> None:
    mixed = mix(IMAGES, LABELS, 0.0, 1.0, seed)
    pasted = (mixed.inputs != IMAGES).all(dim=1)
    assert pasted.float().mean() == pytest.approx(1 - mixed.share)
    rows, columns = (torch.nonzero(pasted[0].any(dim=axis)).flatten() for axis in (1, 0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else (0, 0, 0, 0)
    theirs = v2.CutMix(num_classes=CLASSES)
    params = {"labels": LABELS, "batch_size": N, "box": box, "lam_adj": mixed.share}
    assert torch.equal(mixed.inputs, theirs.transform(IMAGES, params))


def test_shares_are_drawn_as_asked_and_both_take_turns() -> None:
    shares = [mix(IMAGES, LABELS, 0.2, 0.0, seed).share for seed in range(2000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(0.25 / 1.4, abs=0.01)  # ab / ((a+b)^2 (a+b+1))
    pasted = [bool((mix(IMAGES, LABELS, 5.0, 1.0, seed).inputs == IMAGES).any()) for seed in range(400)]
    assert np.mean(pasted) == pytest.approx(0.5, abs=0.08)


def test_the_mixed_loss_is_cross_entropy_with_soft_labels() -> None:
    mixed = mix(IMAGES, LABELS, 0.4, 0.0, 1)
    logits = torch.randn(N, CLASSES, generator=torch.Generator().manual_seed(1))
    loss = objectives.cross_entropy()
    ours = mixed.share * loss(logits, LABELS) + (1 - mixed.share) * loss(logits, mixed.partners)
    theirs = torch.nn.functional.cross_entropy(logits, soft(v2.MixUp(num_classes=CLASSES), mixed.share))
    torch.testing.assert_close(ours, theirs)

"""Losses and class weights against torch's, torchvision's and scikit-learn's own."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from edgeft.core.errors import UsageError
from edgeft.finetune.objectives import class_weights, cross_entropy, focal

N, K = 64, 5
# float32: a few hundred roundings of terms below 10
ATOL = 2e-6


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, K, generator=generator) * 4, torch.randint(0, K, (N,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_torchs(smoothing: float) -> None:
    logits, labels = batch()
    expected = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(cross_entropy(smoothing)(logits, labels), expected, atol=ATOL, rtol=1e-6)


def test_weighted_cross_entropy_is_torchs() -> None:
    logits, labels = batch()
    weights = torch.tensor([0.2, 1.0, 3.0, 0.5, 2.0])
    expected = functional.cross_entropy(logits, labels, weight=weights)
    torch.testing.assert_close(cross_entropy(0.0, weights)(logits, labels), expected, atol=ATOL, rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_two_class_focal_loss_is_torchvisions(gamma: float) -> None:
    # a softmax over (0, z) is the sigmoid of z
    logits, _ = batch()
    z, labels = logits[:, 0], torch.randint(0, 2, (N,), generator=torch.Generator().manual_seed(1))
    expected = sigmoid_focal_loss(z, labels.float(), alpha=-1, gamma=gamma, reduction="mean")
    found = focal(gamma)(torch.stack([torch.zeros_like(z), z], dim=1), labels)
    torch.testing.assert_close(found, expected, atol=ATOL, rtol=1e-5)


def test_focal_without_focus_is_cross_entropy() -> None:
    logits, labels = batch()
    expected = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(focal(0.0, 0.1)(logits, labels), expected, atol=ATOL, rtol=1e-6)


def test_focal_gradient_is_finite_where_the_class_is_certain() -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    focal(0.5)(logits, torch.tensor([0, 0])).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.array([0] * 70 + [1] * 25 + [2] * 5)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    found = class_weights("balanced", labels, ("a", "b", "c"))
    assert found is not None
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_named_weights_follow_the_class_order() -> None:
    found = class_weights({"ok": 1.0, "bad": 4.0}, np.array([0, 1]), ("bad", "ok"))
    assert found is not None
    assert found.tolist() == [4.0, 1.0]
    assert class_weights("none", np.array([0, 1]), ("bad", "ok")) is None


def test_a_weight_for_an_unknown_class_is_refused() -> None:
    with pytest.raises(UsageError, match="defekt"):
        class_weights({"ok": 1.0, "defekt": 4.0}, np.array([0, 1]), ("bad", "ok"))

"""The faster kernels against torch's own: same outputs, same gradients."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from edgeft.finetune.kernels import FastKernels
from edgeft.models.architectures import build

Forward = Callable[[Tensor, Tensor], Tensor]


def gradients(forward: Forward, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = forward(x, weight)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad, weight.grad if weight.grad is not None else torch.zeros(())


def assert_same(forward: Forward, x: Tensor, weight: Tensor) -> None:
    expected = gradients(forward, x, weight)
    with FastKernels():
        found = gradients(forward, x, weight)
    for one, other in zip(found, expected, strict=True):
        # float64: only the order of the sums differs
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4)),
    st.tuples(st.integers(1, 7), st.integers(1, 9)),
    st.integers(1, 2),
    st.integers(0, 4),
    st.integers(0, 6),
)
def test_depthwise_gradients(
    batch: tuple[int, int], kernel: tuple[int, int], stride: int, padding: int, extra: int
) -> None:
    (n, channels), (height, width) = batch, kernel
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, channels, height + extra, width + extra, generator=generator, dtype=torch.float64)
    weight = torch.randn(channels, 1, height, width, generator=generator, dtype=torch.float64)
    assert_same(lambda x, w: functional.conv2d(x, w, None, stride, padding, 1, channels), x, weight)


@pytest.mark.parametrize("groups", [1, 2])
def test_other_convolutions_are_untouched(groups: int) -> None:
    x, weight = torch.randn(2, 4, 9, 9, dtype=torch.float64), torch.randn(4, 4 // groups, 5, 5, dtype=torch.float64)
    assert_same(lambda x, w: functional.conv2d(x, w, None, 1, 2, 1, groups), x, weight)


@pytest.mark.parametrize("activation", [nn.ReLU6, nn.Hardtanh, nn.SiLU, nn.Hardswish, nn.ReLU])
@pytest.mark.parametrize("inplace", [True, False])
def test_activations(activation: Callable[..., nn.Module], inplace: bool) -> None:  # noqa: FBT001
    layer = activation(inplace=inplace)
    x = torch.cat([torch.linspace(-9, 9, 181, dtype=torch.float64), torch.tensor([0.0, 6.0, -1.0, 1.0, -3.0, 3.0])])
    assert_same(lambda x, w: layer(x * w), x.double(), torch.ones(len(x), dtype=torch.float64))


@pytest.mark.parametrize("name", ["test_efficientnet", "mobilenetv3_small_050", "tf_efficientnet_lite0"])
def test_whole_networks(name: str) -> None:
    torch.manual_seed(0)
    module = build("timm", name, dropout=0.0, hub=False).double().train()
    pixels = torch.randn(2, 3, 64, 64, dtype=torch.float64)

    def step() -> list[Tensor]:
        module.zero_grad()
        module(pixels).square().mean().backward()
        return [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]

    expected = step()
    with FastKernels():
        found = step()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-6)


def test_what_needs_no_gradient_is_untouched() -> None:
    x = torch.linspace(-3, 9, 25)
    with FastKernels(), torch.no_grad():
        y = functional.relu6(x, inplace=True)
    assert y.data_ptr() == x.data_ptr()
    assert y.max() == 6


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_zeroes_a_share_and_scales_the_rest_in_both_directions(rate: float) -> None:
    x = torch.randn(400, 500, generator=torch.Generator().manual_seed(0), requires_grad=True)
    torch.manual_seed(3)
    with FastKernels():
        y = functional.dropout(x, rate)
        other = functional.dropout(x, rate)
    y.sum().backward()
    assert x.grad is not None
    zero = y == 0
    # four standard deviations of a share of 200,000 draws
    assert abs(float(zero.float().mean()) - rate) < 4 * (rate * (1 - rate) / x.numel()) ** 0.5 + 1e-5
    torch.testing.assert_close(y[~zero], x[~zero] / (1 - rate), rtol=1e-4, atol=0)
    torch.testing.assert_close(x.grad, torch.where(zero, 0.0, 1 / (1 - rate)), rtol=1e-4, atol=0)
    assert not torch.equal(zero, other == 0)


def test_dropout_repeats_itself_from_a_seed() -> None:
    x = torch.ones(33, 7, requires_grad=True)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        with FastKernels():
            found.append(functional.dropout(x, 0.3))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (1.0, True), (1e-9, True), (0.4, False)])
def test_dropout_at_its_ends_is_torchs(*, rate: float, training: bool) -> None:
    x = torch.randn(5, 4, requires_grad=True)
    with FastKernels():
        y = functional.dropout(x, rate, training)
    assert torch.equal(y, torch.zeros_like(x) if rate == 1.0 else x)


MASKS = {
    "none": None,
    "bool": torch.tensor([[True] * 6, [True] * 4 + [False] * 2])[:, None, None, :],
    "float": torch.tensor([[0.0] * 6, [0.0] * 4 + [-1e9] * 2])[:, None, None, :],
    "a row with nothing": torch.tensor([[True] * 6, [False] * 6])[:, None, None, :],
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("scale", [None, 0.7])
def test_attention_with_dropout_is_torchs_shares_dropped(mask: Tensor | None, scale: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 3, 6, 4, generator=generator).requires_grad_() for _ in range(2))
    value = torch.eye(6).expand(2, 3, 6, 6)  # so the result is the shares themselves
    shares = functional.scaled_dot_product_attention(query, key, value, mask, scale=scale)
    with FastKernels():
        found = functional.scaled_dot_product_attention(query, key, value, mask, 0.5, scale=scale)
    kept = found != 0
    assert (shares[~kept] > 0).any()  # some were dropped
    torch.testing.assert_close(found[kept], 2 * shares[kept])
    (ours,) = torch.autograd.grad((found * kept).sum(), query)
    (theirs,) = torch.autograd.grad((2 * shares * kept).sum(), query)
    torch.testing.assert_close(ours, theirs)


def test_attention_without_dropout_is_untouched() -> None:
    query = torch.randn(2, 3, 6, 4, requires_grad=True)
    expected = functional.scaled_dot_product_attention(query, query, query)
    with FastKernels():
        assert torch.equal(functional.scaled_dot_product_attention(query, query, query), expected)
        causal = functional.scaled_dot_product_attention(query, query, torch.eye(6).expand(2, 3, 6, 6), None, 0.1, True)
    assert not causal.triu(1).any()

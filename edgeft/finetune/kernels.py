"""Faster forms of a few operators for float32 training on CPU; same mathematics, other kernels.

1. A depthwise convolution's weight gradient: oneDNN's kernel is some 7 times slower for kernels wider than 3 (16 x 672
   x 14 x 14, 5x5: 28 ms; 5x3: 4 ms). A gradient of width 5 is the columns 0..2 of one of width 3, then those of 2.
2. In-place ReLU6 keeps a copy of its input for the backward pass, though its output says the same: 0 < y < 6 where,
   and only where, 0 < x < 6.
3. In-place SiLU and Hardswish copy their input too; out of place they need not.
4. Dropout's mask: torch draws it value by value from a Mersenne twister on one core, a fifth of a small text encoder's
   step. 16 bits a value from SFC64 take a tenth of that. The rate is rounded to 1/65,536, and what stays is scaled by
   the rounded rate. torch's generator seeds each mask, so a run repeats itself as it did.
5. Attention with dropout has no fused kernel on CPU, and its plain form asks of every row whether anything is left of
   it; the mask, which has no heads, tells that sooner.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_FAST_WIDTH = 3
_CONV_2D = 2
_STEPS = 1 << 16
"""Rates of dropout that 16 bits tell apart."""


class FastKernels(TorchFunctionMode):
    """While active, training calls of the operators above take their faster form; every other call is untouched."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        """Call `func`, or its faster form."""
        del types
        faster = _FASTER.get(func) if torch.is_grad_enabled() else None
        return (faster or func)(*args, **(kwargs or {}))


def depthwise_weight_gradient(
    grad: Tensor, x: Tensor, shape: torch.Size, stride: list[int], padding: list[int]
) -> Tensor:
    """Return the weight gradient of a depthwise convolution, at most 3 columns at a time.

    Args:
        grad: gradient of the output, float32 [N, C, H', W'].
        x: input, float32 [N, C, H, W].
        shape: of the weight, [C, 1, h, w].
        stride: vertical and horizontal.
        padding: vertical and horizontal.
    """
    channels, _, height, width = shape
    columns = []
    for first in range(0, width, _FAST_WIDTH):
        taps = min(_FAST_WIDTH, width - first)
        seen = (grad.shape[3] - 1) * stride[1] + taps
        left = padding[1] - first
        window = functional.pad(x, (left, seen - x.shape[3] - left))
        part = torch.ops.aten.convolution_backward(
            grad,
            window,
            x.new_empty(channels, 1, height, taps),
            None,
            stride,
            [padding[0], 0],
            [1, 1],
            False,
            [0, 0],
            channels,
            [False, True, False],
        )
        columns.append(part[1])
    return torch.cat(columns, dim=3)


class _Depthwise(Function):
    """A depthwise convolution whose weight gradient is `depthwise_weight_gradient`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> Tensor:  # noqa: ANN401 - torch gives its context no type
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401 - torch gives its context no type
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            mask = [True, False, False]
            places = (ctx.stride, ctx.padding, [1, 1], False, [0, 0], len(weight), mask)
            of_x = torch.ops.aten.convolution_backward(grads[0], x, weight, None, *places)[0]
        if ctx.needs_input_grad[1]:
            of_weight = depthwise_weight_gradient(grads[0], x, weight.shape, ctx.stride, ctx.padding)
        return of_x, of_weight, None, None


class _ClampInPlace(Function):
    """Clamp in place and keep only the result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:  # noqa: ANN401 - torch gives its context no type
        x.clamp_(low, high)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - torch gives its context no type
        (y,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], y, *ctx.bounds), None, None


class _Dropout(Function):
    """Zero what `kept` leaves out, and scale the rest."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: float) -> Tensor:  # noqa: ANN401 - torch gives its context no type
        ctx.save_for_backward(kept)
        ctx.scale = scale
        result: Tensor = torch.ops.aten.native_dropout_backward(x, kept, scale)  # x * kept * scale, in one pass
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - torch gives its context no type
        (kept,) = ctx.saved_tensors
        return torch.ops.aten.native_dropout_backward(grads[0], kept, ctx.scale), None, None


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002, FBT001, FBT002 - torch's signature
    dropped = round(p * _STEPS)
    if not training or not 0 < dropped < _STEPS or inplace or input.dtype != torch.float32:
        return functional.dropout(input, p, training, inplace)
    words = np.random.SFC64(int(torch.randint(torch.iinfo(torch.int64).max, ())))
    drawn = np.asarray(words.random_raw(-(-input.numel() * 2 // 8))).view(np.uint16)[: input.numel()]
    kept = torch.from_numpy(drawn >= dropped).view(input.shape)
    result: Tensor = _Dropout.apply(input, kept, _STEPS / (_STEPS - dropped))
    return result


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,  # noqa: FBT001, FBT002 - torch's signature
    **more: Any,  # noqa: ANN401 - as above
) -> Tensor:
    if not dropout_p or is_causal or more.get("enable_gqa") or query.dtype != torch.float32:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, **more)
    scale = more.get("scale")
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    whole = attn_mask is None
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        whole = bool(attn_mask.any(-1).all())
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        whole = bool((attn_mask > -torch.inf).any(-1).all())
        scores = scores + attn_mask
    shares = torch.softmax(scores, -1) if whole else torch.ops.aten._safe_softmax(scores, -1)  # noqa: SLF001 - torch's own
    return _dropout(shares, dropout_p) @ value


def _conv2d(
    input: Tensor,  # noqa: A002 - as above
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: str | int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    depthwise = groups == len(weight) == input.shape[1] and weight.shape[3] > _FAST_WIDTH
    if not depthwise or bias is not None or isinstance(padding, str) or _pair(dilation) != [1, 1]:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    result: Tensor = _Depthwise.apply(input, weight, _pair(stride), _pair(padding))
    return result


def _hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:  # noqa: A002, FBT001, FBT002 - torch's signature
    if not inplace or not input.requires_grad or input.is_leaf:
        return functional.hardtanh(input, min_val, max_val, inplace)
    result: Tensor = _ClampInPlace.apply(input, min_val, max_val)
    return result


def _relu6(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002, FBT001, FBT002 - torch's signature
    return _hardtanh(input, 0.0, 6.0, inplace)


def _silu(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002, FBT001, FBT002 - torch's signature
    return functional.silu(input, inplace=inplace and not input.requires_grad)


def _hardswish(input: Tensor, inplace: bool = False) -> Tensor:  # noqa: A002, FBT001, FBT002 - torch's signature
    return functional.hardswish(input, inplace=inplace and not input.requires_grad)


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value] * _CONV_2D if isinstance(value, int) else list(value)


_FASTER: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.conv2d: _conv2d,
    functional.conv2d: _conv2d,
    functional.hardtanh: _hardtanh,
    functional.relu6: _relu6,
    functional.silu: _silu,
    functional.hardswish: _hardswish,
    functional.dropout: _dropout,
    functional.scaled_dot_product_attention: _attention,
}

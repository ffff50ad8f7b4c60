"""Where the windows of a convolution or a pool lie: kernel, strides, dilations and padding, resolved for one input.

    span = dilation (kernel - 1) + 1        outputs = floor((size + begin + end - span) / stride) + 1

`auto_pad` SAME_* pads so that outputs = ceil(size / stride); `ceil_mode` 1 adds what a last, partial window lacks,
unless that window would start in the padding at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor
from torch.nn import functional

from edgeft.graph.torch_ops.operator import unsupported


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows over D spatial axes.

    Args:
        kernel: D sizes.
        strides: D steps.
        dilations: D distances between taps.
        begin: D paddings before the input.
        end: D paddings after it.
        extra: D paddings after that, which only `ceil_mode` asks for: they never count in an average.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    extra: tuple[int, ...]

    @property
    def symmetric(self) -> bool:
        """Whether torch's own padding can stand for this one."""
        return self.begin == self.end and not any(self.extra)

    def pad(self, x: Tensor, value: float) -> Tensor:
        """Return `x` [N, C, ...] padded with `value` on every spatial axis."""
        amounts = zip(self.begin, self.end, self.extra, strict=True)
        flat = [amount for begin, end, extra in reversed(list(amounts)) for amount in (begin, end + extra)]
        return functional.pad(x, flat, value=value) if any(flat) else x


def windows(node: ir.Node, spatial: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Return the windows of `node`.

    Args:
        node: a convolution or a pool.
        spatial: sizes of the input's spatial axes.
        kernel: sizes of the kernel.
    """
    get, ones = node.attributes, [1] * len(kernel)
    strides = tuple(get.get_ints("strides", ones))
    dilations = tuple(get.get_ints("dilations", ones))
    spans = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel, strict=True)]
    begin, end = _padding(node, spatial, spans, strides)
    extra = tuple(
        _ceil_extra(*facts) if get.get_int("ceil_mode", 0) else 0
        for facts in zip(spatial, begin, end, spans, strides, strict=True)
    )
    return Windows(tuple(kernel), strides, dilations, begin, end, extra)


def _padding(
    node: ir.Node, spatial: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    count = len(spatial)
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = node.attributes.get_ints("pads", [0] * (2 * count))
        return tuple(pads[:count]), tuple(pads[count:])
    if mode == "VALID":
        return (0,) * count, (0,) * count
    if mode not in {"SAME_UPPER", "SAME_LOWER"}:
        raise unsupported(node, f"auto_pad = {mode!r}")
    totals = [
        max((-(-size // stride) - 1) * stride + span - size, 0)
        for size, span, stride in zip(spatial, spans, strides, strict=True)
    ]
    smaller, larger = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return (smaller, larger) if mode == "SAME_UPPER" else (larger, smaller)


def _ceil_extra(size: int, begin: int, end: int, span: int, stride: int) -> int:
    """Return the padding that rounds the number of windows up, 0 where the last one would start past the input."""
    last = -(-(size + begin + end - span) // stride) * stride
    return max(last + span - (size + begin + end), 0) if last < size + begin else 0

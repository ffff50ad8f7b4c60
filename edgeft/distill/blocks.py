"""An image student with fewer blocks than its teacher: what keeps the shape of a feature map can be left out of it."""

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from edgeft.core.errors import UsageError
from edgeft.distill.importance import Judge, left_out
from edgeft.models import shapes
from edgeft.models.probing import at_rest


def without_blocks(module: nn.Module, count: int, pixels: Tensor, judge: Judge) -> tuple[nn.Module, list[str]]:
    """Return a copy of `module` without the `count` blocks whose absence costs least, and their names.

    Args:
        module: an image classifier.
        count: how many blocks go.
        pixels: what it takes, float32 [n, 3, H, W].
        judge: rows that the loss is measured on.

    Raises:
        UsageError: it has too few blocks that can be left out.
    """
    blocks = same_shaped(module, pixels)
    if count > len(blocks):
        raise UsageError(
            f"distill.student.drop_blocks: {count}, and {len(blocks)} blocks of {type(module).__name__} put out maps "
            "of the shape that they take",
            hint="drop fewer" if blocks else "take fewer channels instead: distill.prune: 0.3",
        )

    def rest(gone: Sequence[str]) -> nn.Module:
        found = copy.deepcopy(module)
        for name in gone:
            shapes.drop_(found, name)
        return found

    gone = left_out(blocks, count, lambda names: judge.loss(rest(names)))
    return rest(gone), sorted(gone, key=blocks.index)


def same_shaped(module: nn.Module, pixels: Tensor) -> list[str]:
    """Return the blocks of convolutions, parts of a sequence, that put out feature maps of the shape they take."""
    found: list[str] = []

    def note(name: str, given: tuple[object, ...], output: object) -> None:
        if isinstance(given[0], Tensor) and isinstance(output, Tensor) and given[0].shape == output.shape:
            found.append(name)

    hooks = [
        part.register_forward_hook(lambda _, given, output, name=name: note(name, given, output))
        for name, part in _blocks(module).items()
    ]
    try:
        with at_rest(module):
            module(pixels[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _blocks(module: nn.Module) -> dict[str, nn.Module]:
    """Return the innermost parts of sequences that hold a convolution over rows and columns.

    Not a stage of blocks, then, and not squeeze-and-excite, whose convolutions see single positions.
    """
    parts = dict(module.named_modules())
    found = {
        name: part
        for name, part in parts.items()
        if isinstance(parts.get(name.rpartition(".")[0]), nn.Sequential)
        and not isinstance(part, nn.Sequential | nn.Conv2d)
        and any(isinstance(inner, nn.Conv2d) and max(inner.kernel_size) > 1 for inner in part.modules())
    }
    outer = {name for name in found for other in found if other.startswith(f"{name}.")}
    return {name: part for name, part in found.items() if name not in outer}

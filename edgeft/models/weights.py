"""Weights from a file into an architecture: by name, or in order where only the names differ.

A foreign `.pth` is read with `weights_only=True` (no code runs); `.safetensors` is read as it is.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeft.core.errors import DataError

_WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema")


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file in their stored order.

    Raises:
        DataError: the file is missing, empty, damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise DataError(f"model.weights: {path} is not a file", hint="check model.weights in the recipe")
    if path.stat().st_size == 0:
        raise DataError(f"model.weights: {path} is empty (0 bytes)", hint="fetch the file again")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise DataError(
            f"model.weights: {path} cannot be read as weights: {str(error).splitlines()[0] if str(error) else error!r}",
            hint="a whole .safetensors file, or a .pth that holds tensors only, is needed; fetch the file again",
        ) from error
    tensors = _unwrap(content)
    if not tensors:
        raise DataError(f"model.weights: {path} holds no named tensors", hint="save `model.state_dict()`")
    return tensors


def load_(module: nn.Module, tensors: Mapping[str, Tensor], *, head: str, source: str) -> str:
    """Copy `tensors` into `module` and return one sentence that says how they were matched.

    Tensors are matched by name. Where the names differ but both sides list the same shapes in the same order, they
    are matched in order. The classifier (names that start with `head`) may differ or be absent: it is replaced anyway.

    Raises:
        DataError: a tensor is missing, unknown, or has another shape; names the tensor and both shapes.
    """
    wanted = module.state_dict()
    if trunk_names := [name for name in wanted if not name.startswith(head)]:
        known = sum(name in tensors for name in trunk_names)
        in_order = known == 0
    else:
        in_order = False
    renamed = _in_order(wanted, tensors, head, source) if in_order else _by_name(wanted, tensors, head, source)
    module.load_state_dict({**wanted, **renamed})
    skipped = [name for name in wanted if name not in renamed]
    kept = f"; {', '.join(skipped)} not used (new classifier)" if skipped else ""
    return f"weights: {len(renamed)} tensors of {source} mapped {'in order' if in_order else 'by name'}{kept}"


def _unwrap(content: object) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _by_name(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], head: str, source: str) -> dict[str, Tensor]:
    unknown = [name for name in tensors if name not in wanted and not name.startswith(head)]
    missing = [
        name
        for name in wanted
        if name not in tensors and not name.startswith(head) and not name.endswith("num_batches_tracked")
    ]
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"has {unknown[0]!r}, which the architecture lacks"
        raise DataError(
            f"model.weights: {source} {what} ({len(missing)} missing, {len(unknown)} unknown tensors)",
            hint="choose the model.base that these weights were saved from",
        )
    matched: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in wanted and tensor.shape == wanted[name].shape:
            matched[name] = tensor
        elif not name.startswith(head):
            raise _wrong_shape(source, name, tensor, name, wanted[name])
    return matched


def _in_order(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], head: str, source: str) -> dict[str, Tensor]:
    if len(wanted) != len(tensors):
        raise DataError(
            f"model.weights: {source} holds {len(tensors)} tensors under other names, the architecture {len(wanted)}",
            hint="choose the model.base that these weights were saved from",
        )
    matched: dict[str, Tensor] = {}
    for (name, target), (stored, tensor) in zip(wanted.items(), tensors.items(), strict=True):
        if tensor.shape == target.shape:
            matched[name] = tensor
        elif not name.startswith(head):
            raise _wrong_shape(source, stored, tensor, name, target)
    return matched


def _wrong_shape(source: str, stored: str, tensor: Tensor, name: str, target: Tensor) -> DataError:
    return DataError(
        f"model.weights: {source}: tensor {stored!r} has shape {tuple(tensor.shape)}, "
        f"the architecture's {name!r} needs {tuple(target.shape)}",
        hint="choose the model.base that these weights were saved from",
    )

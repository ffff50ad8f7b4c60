"""What a killed run resumes from: weights, optimizer moments and the cursor, in one safetensors file.

All randomness is a function of (seed, epoch, step), so no generator state is stored, and a resumed run gives the same
bits as an uninterrupted one.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from edgeft.core.atomic import write_atomic
from edgeft.core.stage import Json

_FILE = "state.safetensors"
_MODEL, _BEST, _AVERAGE, _MOMENTS = "model.", "best.", "average.", "optimizer."

Weights: TypeAlias = dict[str, Tensor]
"""A module's state by name."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a run stands, between two optimizer steps.

    Args:
        key: digest of what is being trained; a file with another key is ignored.
        epoch: running epoch.
        step: optimizer steps done in it.
        loss_sum: sum over its images of the training loss.
        seen: images it has seen.
        history: one entry per finished epoch.
        best_epoch: epoch of the best checkpoint, -1 before the first.
        best_value: its value of the metric, larger is better.
    """

    key: str
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seen: int = 0
    history: tuple[dict[str, Json], ...] = field(default=())
    best_epoch: int = -1
    best_value: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Saved:
    """What a run holds beside its module and its optimizer.

    Args:
        cursor: where it stands.
        best: weights of the best epoch.
        average: moving averages of what is trained.
        scaler: what fp16's loss scaler says of itself; None in other precisions.
    """

    cursor: Cursor
    best: Weights = field(default_factory=dict)
    average: Weights = field(default_factory=dict)
    scaler: dict[str, Any] | None = None


def save_state(folder: Path, saved: Saved, module: nn.Module, optimizer: Optimizer) -> None:
    """Write the run's state whole or not at all."""
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"{_BEST}{name}": tensor for name, tensor in saved.best.items()}
    tensors |= {f"{_AVERAGE}{name}": tensor for name, tensor in saved.average.items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"{_MOMENTS}{index}.{name}": value for name, value in values.items() if value is not None}
    metadata = {"cursor": json.dumps(asdict(saved.cursor)), "scaler": json.dumps(saved.scaler)}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(folder / _FILE, save(plain, metadata))


def load_state_(folder: Path, key: str, module: nn.Module, optimizer: Optimizer) -> Saved:
    """Restore `module` and `optimizer` in place and return the rest.

    Where there is no state, or one of another `key`, nothing is touched and what is returned has a new cursor.
    """
    try:
        with safe_open(folder / _FILE, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (FileNotFoundError, SafetensorError):
        return Saved(Cursor(key))
    cursor = Cursor(**json.loads(metadata["cursor"]))
    if cursor.key != key:
        return Saved(Cursor(key))
    module.load_state_dict(_below(_MODEL, tensors))
    _load_moments_(optimizer, _below(_MOMENTS, tensors))
    cursor = replace(cursor, history=tuple(cursor.history))
    return Saved(cursor, _below(_BEST, tensors), _below(_AVERAGE, tensors), json.loads(metadata["scaler"]))


def _below(prefix: str, tensors: Weights) -> Weights:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _load_moments_(optimizer: Optimizer, flat: Weights) -> None:
    """Restore per-parameter state with each parameter's memory layout: fused kernels depend on it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in flat.items():
        index, _, key = name.partition(".")
        like = parameters[int(index)]
        laid_out = torch.empty_like(like, dtype=value.dtype).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(index), {})[key] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

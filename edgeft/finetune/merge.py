"""Adapters and their base become one model, in float32, before anything is exported or quantized.

Those that can be are folded into the base's weights; the others stay in the model and are exported with it. Merged and
unmerged must give the same logits, and others than the base: a merge that changes nothing is an error.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgeft.core.errors import DataError, EdgeftError
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.data.dataset import Dataset
from edgeft.finetune import adapters
from edgeft.finetune.config import MergeConfig
from edgeft.finetune.session import pretrained
from edgeft.models.checkpoint import CheckpointMeta, save
from edgeft.models.predict import as_module_takes

_ROWS = 16
_TOLERANCE = 1e-4
"""Largest difference of a logit between merged and unmerged, relative to the largest (at least 1): float32 sums in
another order."""

Logits = Callable[[nn.Module], npt.NDArray[np.float32]]


def run(ctx: Context, inputs: Inputs, config: MergeConfig) -> StageResult:
    """Make one model of the adapters of `inputs["finetune"]` and their base, and write a checkpoint folder.

    Raises:
        DataError: the adapters are damaged or of another model.
        EdgeftError: merging changed what the model computes, or nothing at all.
    """
    data = Dataset.open(inputs["data"])
    module, part = pretrained(ctx, inputs, config.model, data).module.eval(), data.part(_spread(data))
    takes = as_module_takes(CheckpointMeta.of(module, config.model, data.classes, data.contract))

    def logits(module: nn.Module) -> npt.NDArray[np.float32]:
        return logits_of(module, takes(part[:]), ctx.threads)

    measured = merge_(module, inputs["finetune"], logits, str(config.model.weights))
    save(ctx.folder, module, CheckpointMeta.of(module, config.model, data.classes, data.contract))
    return StageResult(ctx.folder, measured)


def merge_(module: nn.Module, folder: Path, logits: Logits, base_name: str) -> dict[str, Json]:
    """Put the adapters in `folder` into the plain `module`, fold them, and return what the checks found.

    Args:
        module: the base, changed in place.
        folder: as the finetune stage writes it.
        logits: of some rows, by which states of the module are compared.
        base_name: what the base is, for errors.

    Raises:
        DataError: the adapters are damaged or of another model.
        EdgeftError: merging changed what the model computes, or nothing at all.
    """
    meta, tensors = adapters.read(folder)
    if adapters.base_digest(module) != meta["base"]:
        raise DataError(
            f"{folder}: these adapters were trained beside other weights than {base_name}",
            hint="merge them into the base that they were trained on",
        )
    if meta["kind"] != adapters.OWN:
        _set_head_(module, folder, tensors)
    base = logits(module)
    adapters.put_back_(module, meta, tensors)
    unmerged = logits(module)
    merged = logits(adapters.fold_(module))
    error, moved = float(np.abs(merged - unmerged).max()), float(np.abs(unmerged - base).max())
    limit = _TOLERANCE * max(1.0, float(np.abs(unmerged).max()))
    if not error <= limit:  # NaN fails
        raise EdgeftError(
            f"merged and unmerged adapters differ by {error:.2g} in a logit, rounding explains {limit:.2g}"
        )
    if moved <= error:
        raise EdgeftError(
            "what was trained changes nothing: the merged model would be the base, with another head at most",
            hint="train longer or with a higher finetune.lr",
        )
    return {"layers": len(meta["layers"]), "max_abs_logit_error": error, "max_abs_logit_change": moved}


def _set_head_(module: nn.Module, folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Give `module` the head among `tensors`, so that what the adapters change can be told."""
    own = module.state_dict()
    for name, tensor in tensors.items():
        if adapters.is_adapter(name):
            continue
        if name not in own or own[name].shape != tensor.shape:
            raise DataError(f"{folder}: the adapters are of another model: {name!r} does not fit")
        own[name].copy_(tensor)


def _spread(data: Dataset) -> npt.NDArray[np.int64]:
    rows = np.sort(np.concatenate([data.indices("train"), data.indices("val")]))
    if not len(rows):
        raise DataError(f"{data.folder}: no train or validation row to compare models on")
    return rows[np.linspace(0, len(rows) - 1, min(_ROWS, len(rows))).round().astype(np.int64)]


def logits_of(module: nn.Module, given: Any, threads: int) -> npt.NDArray[np.float32]:  # noqa: ANN401 - tokens or pixels
    """Return float32 [N, K] of `module` for what it takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            found: npt.NDArray[np.float32] = module(given).numpy()
            return found
    finally:
        torch.set_num_threads(before)

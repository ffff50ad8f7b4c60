"""The merge stage: adapters and base become one model, in float32, before anything is exported or quantized.

Those that can be are folded into the base's weights; the others stay in the model and are exported with it.
Merged and unmerged must give the same logits, and others than the base: a merge that changes nothing is an error.
"""

import numpy as np
import numpy.typing as npt
import torch

from edgeft.core.errors import DataError, EdgeftError
from edgeft.core.stage import Context, Inputs, StageResult
from edgeft.data.dataset import Dataset, Part
from edgeft.finetune import adapters
from edgeft.finetune.config import MergeConfig
from edgeft.models.checkpoint import CheckpointMeta, save
from edgeft.models.predict import as_module_takes
from edgeft.models.sources import create_with_notes

_ROWS = 16
_TOLERANCE = 1e-4
"""Largest difference of a logit between merged and unmerged, relative to the largest (at least 1): float32 sums in
another order."""


def run(ctx: Context, inputs: Inputs, config: MergeConfig) -> StageResult:
    """Fold the adapters of `inputs["finetune"]` into the base, and write a checkpoint folder.

    Raises:
        DataError: the adapters are damaged or of another model.
        EdgeftError: merging changed what the model computes, or nothing at all.
    """
    data = Dataset.open(inputs["data"])
    created = create_with_notes(config.model, inputs.get("weights"), data.classes, ctx.seed_for("head"))
    module = created.module.eval()
    meta, tensors = adapters.read(inputs["finetune"])
    if adapters.base_digest(module) != meta["base"]:
        raise DataError(
            f"{inputs['finetune']}: these adapters were trained beside other weights than {config.model.weights}",
            hint="merge them into the base that they were trained on",
        )
    part = data.part(_spread(data))
    plain = CheckpointMeta.of(module, config.model, data.classes, data.contract)
    head = {name: tensor for name, tensor in tensors.items() if not adapters.is_adapter(name)}
    with torch.no_grad():
        own = dict(module.named_parameters())
        for name, tensor in head.items():
            if name not in own or own[name].shape != tensor.shape:
                raise DataError(f"the adapters are of another model: {name!r} does not fit")
            own[name].copy_(tensor)
    base = _logits(module, plain, part, ctx.threads)
    adapters.put_back_(module, meta, tensors)
    unmerged = _logits(module, plain, part, ctx.threads)
    merged = _logits(adapters.fold_(module), plain, part, ctx.threads)
    error, moved = float(np.abs(merged - unmerged).max()), float(np.abs(unmerged - base).max())
    limit = _TOLERANCE * max(1.0, float(np.abs(unmerged).max()))
    if not error <= limit:  # NaN fails
        raise EdgeftError(
            f"merged and unmerged adapters differ by {error:.2g} in a logit, rounding explains {limit:.2g}"
        )
    if moved <= error:
        raise EdgeftError(
            "the adapters change nothing: the merged model would be the base with another head",
            hint="train longer or with a higher finetune.lr, or use finetune.method: frozen",
        )
    save(ctx.folder, module, CheckpointMeta.of(module, config.model, data.classes, data.contract))
    measured = {"layers": len(meta["layers"]), "max_abs_logit_error": error, "max_abs_logit_change": moved}
    return StageResult(ctx.folder, measured)


def _spread(data: Dataset) -> npt.NDArray[np.int64]:
    rows = np.sort(np.concatenate([data.indices("train"), data.indices("val")]))
    if not len(rows):
        raise DataError(f"{data.folder}: no train or validation row to compare models on")
    return rows[np.linspace(0, len(rows) - 1, min(_ROWS, len(rows))).round().astype(np.int64)]


def _logits(module: torch.nn.Module, checkpoint: CheckpointMeta, part: Part, threads: int) -> npt.NDArray[np.float32]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            found: npt.NDArray[np.float32] = module(as_module_takes(checkpoint)(part[:])).numpy()
            return found
    finally:
        torch.set_num_threads(before)

"""The method none: the checkpoint that `model.weights` names is taken as it is, e.g. one that `edgeft merge` wrote."""

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import UsageError
from edgeft.core.stage import Context, Inputs, StageResult
from edgeft.data.dataset import Dataset
from edgeft.finetune.config import NoneConfig
from edgeft.finetune.session import pretrained
from edgeft.models.checkpoint import META, CheckpointMeta, save


def run(ctx: Context, inputs: Inputs, config: NoneConfig) -> StageResult:
    """Write the checkpoint that `inputs["weights"]` is, with the data's input contract.

    Raises:
        DataError: it is damaged, or its classes are not the data's.
        UsageError: the weights are no checkpoint of edgeft, so their classifier knows nothing of these classes.
    """
    weights = inputs.get("weights")
    if weights is None or not (weights / META).is_file():
        raise UsageError(
            f"finetune.method: none takes the model as it is: model.weights ({config.model.weights}) is no checkpoint",
            hint="name the folder that `edgeft merge` wrote, or train: finetune.method: full",
        )
    data = Dataset.open(inputs["data"])
    created = pretrained(ctx, inputs, config.model, data)
    write_atomic(ctx.folder / "history.json", "[]\n")
    save(ctx.folder, created.module, CheckpointMeta.of(created.module, config.model, data.classes, data.contract))
    total = sum(parameter.numel() for parameter in created.module.parameters())
    return StageResult(
        ctx.folder, {"trainable_parameters": 0, "parameters": total}, (*created.notes, "nothing is trained")
    )

"""Train biases, the scales of normalisations, and the head: a thousandth of the weights (Ben Zaken et al. 2022)."""

from torch import nn

from edgeft.core.stage import Context, Inputs, StageResult
from edgeft.finetune.config import BitFitConfig
from edgeft.finetune.loop import Phase
from edgeft.finetune.session import finish, part_writer, session


def run(ctx: Context, inputs: Inputs, config: BitFitConfig) -> StageResult:
    """Fine-tune biases, normalisations and the head, and write what was trained.

    Raises:
        DataError: the data folder or the weights cannot be used.
        UsageError: the settings cannot be used, or training diverged.
    """
    with session(ctx, inputs, config) as opened:
        names = {id(parameter): name for name, parameter in opened.module.named_parameters()}
        head = {names[id(parameter)] for parameter in opened.groups[opened.head][1].parameters()}
        chosen = head | one_dimensional(opened.module)
        phases = [Phase(0, config.epochs, 0, chosen.__contains__)]
        write = part_writer(opened, phases)
        fit = opened.loop().run(phases, lambda _: opened.feed())
        return finish(opened, fit, phases, write=write)


def one_dimensional(module: nn.Module) -> set[str]:
    """Return the names of the biases, and of the scales and shifts of normalisations."""
    return {name for name, parameter in module.named_parameters() if parameter.ndim == 1}

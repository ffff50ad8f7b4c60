"""Train every layer from the first step."""

from edgeft.core.stage import Context, Inputs, StageResult
from edgeft.finetune.config import FullConfig
from edgeft.finetune.loop import Phase
from edgeft.finetune.session import finish, session


def run(ctx: Context, inputs: Inputs, config: FullConfig) -> StageResult:
    """Fine-tune the whole network and write a checkpoint folder.

    Raises:
        DataError: the data folder or the weights cannot be used.
        UsageError: the settings cannot be used, or training diverged.
    """
    with session(ctx, inputs, config) as opened:
        phases = [Phase(0, config.epochs, boundary=0)]
        loop = opened.loop()
        fit = loop.run(phases, lambda _: opened.feed())
        return finish(opened, fit, phases)

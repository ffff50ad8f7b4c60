"""Keep the first groups as they are and train all others: the low layers of a good encoder need no change."""

from edgeft.core.stage import Context, Inputs, StageResult
from edgeft.finetune.config import FirstNFrozenConfig
from edgeft.finetune.engines import torch_engine
from edgeft.finetune.feeds import Feed, FrozenTokenFeed, PrefixFeed, TokenFeed
from edgeft.finetune.loop import Phase
from edgeft.finetune.session import Session, finish, part_writer, session
from edgeft.models.stages import chain


def run(ctx: Context, inputs: Inputs, config: FirstNFrozenConfig) -> StageResult:
    """Fine-tune all groups but the first `config.frozen_groups` and write what was trained.

    Raises:
        DataError: the data folder or the weights cannot be used.
        UsageError: the settings cannot be used, or training diverged.
    """
    with session(ctx, inputs, config) as opened:
        boundary = min(config.frozen_groups, opened.head)
        phases = [Phase(0, config.epochs, boundary)]
        write = part_writer(opened, phases)
        fit = opened.loop().run(phases, lambda _: _feed(opened, boundary))
        named = ", ".join(name for name, _ in opened.groups[:boundary])
        return finish(opened, fit, phases, [f"frozen: {named}"], write=write)


def _feed(opened: Session, boundary: int) -> Feed:
    below, device = chain(opened.groups[:boundary]), opened.accelerate.device
    if opened.data.is_text:
        return FrozenTokenFeed(TokenFeed(opened.data.tokens, device), below)
    return PrefixFeed(opened.pixel_feed(), torch_engine(below, opened.data.input, device), device)

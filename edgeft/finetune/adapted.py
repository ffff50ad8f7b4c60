"""The methods lora, ia3, adapter, prompt and prefix: the base stays, small parts and a new head are trained."""

from dataclasses import replace
from typing import Any

from torch import nn

from edgeft.core.stage import Context, Inputs, StageResult
from edgeft.finetune import adapters
from edgeft.finetune.config import AdapterConfig, Ia3Config, LoraConfig, PrefixConfig, PromptConfig, TrainConfig
from edgeft.finetune.loop import Phase
from edgeft.finetune.session import Session, finish, session
from edgeft.models import insertion
from edgeft.models.checkpoint import write_meta
from edgeft.models.inserts import Insert
from edgeft.models.stages import depth_groups


def run(ctx: Context, inputs: Inputs, config: TrainConfig) -> StageResult:
    """Train what `config` puts beside or into the model, and the head, and write them alone.

    Raises:
        DataError: the data folder or the weights cannot be used.
        UsageError: the settings cannot be used, the model has no place for what they ask, or training diverged.
    """
    with session(ctx, inputs, config) as plain:
        head, base = adapters.head_prefix(plain.module), adapters.base_digest(plain.module)
        settings = _put_in_(plain.module, config, ctx.seed_for("adapters"))
        opened = replace(plain, groups=depth_groups(plain.module))
        phases = [Phase(0, config.epochs, 0, lambda name: adapters.is_adapter(name) or name.startswith(head))]
        fit = opened.loop().run(phases, lambda _: opened.feed())

        def write(run: Session) -> None:
            adapters.write(run.ctx.folder, run.trained(phases), settings, base, run.samples)
            write_meta(run.ctx.folder, replace(run.checkpoint(), inserts=()))

        return finish(opened, fit, phases, [_told(settings)], write=write)


def _put_in_(module: nn.Module, config: TrainConfig, seed: int) -> dict[str, Any]:
    if isinstance(config, LoraConfig | Ia3Config):
        return adapters.folded_settings(config, adapters.inject_(module, config, seed))
    insert = _planned(module, config)
    insertion.insert_(module, insert, seed)
    return adapters.kept_settings(insert)


def _planned(module: nn.Module, config: TrainConfig) -> Insert:
    match config:
        case AdapterConfig():
            return insertion.plan(module, "adapter", config.bottleneck, config.targets)
        case PromptConfig():
            return insertion.plan(module, "prompt", config.prompts)
        case PrefixConfig():
            return insertion.plan(module, "prefix", config.prefixes)
        case _:
            raise TypeError(f"{type(config).__name__} puts nothing into a model")


def _told(settings: dict[str, Any]) -> str:
    where = f"{len(settings['layers'])} {'place' if len(settings['layers']) == 1 else 'places'}"
    folded = settings["kind"] in adapters.FOLDED
    return f"{settings['kind']} in {where}; " + (
        "folded into the weights before the export" if folded else "it stays in the model, and costs time on the device"
    )

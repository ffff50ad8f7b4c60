"""The methods `lora` and `ia3`: adapters and a new head are trained, the base stays as it is."""

from edgeft.core.stage import Context, Inputs, StageResult
from edgeft.finetune import adapters
from edgeft.finetune.config import Ia3Config, LoraConfig
from edgeft.finetune.loop import Phase
from edgeft.finetune.session import Session, finish, session


def run(ctx: Context, inputs: Inputs, config: LoraConfig | Ia3Config) -> StageResult:
    """Train adapters and head, and write them alone.

    Raises:
        DataError: the data folder or the weights cannot be used.
        UsageError: the settings cannot be used, no layer fits `targets`, or training diverged.
    """
    with session(ctx, inputs, config) as opened:
        head = adapters.head_prefix(opened.module)
        base = adapters.base_digest(opened.module)
        layers = adapters.inject_(opened.module, config, ctx.seed_for("adapters"))
        phases = [Phase(0, config.epochs, 0, lambda name: adapters.is_adapter(name) or name.startswith(head))]
        fit = opened.loop().run(phases, lambda _: opened.feed())

        def write(run: Session) -> None:
            trained = phases[0].trained(run.module, run.groups)
            adapters.write(run.ctx.folder, trained, config, layers, base)

        return finish(opened, fit, phases, [f"adapters beside {len(layers)} layers"], write=write)

"""What every method does around the loop: open the data, make the model, write the checkpoint folder."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import UsageError
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.data.augment import build
from edgeft.data.dataset import Dataset
from edgeft.finetune import adapters
from edgeft.finetune.config import TrainConfig
from edgeft.finetune.environment import accelerator, peak_memory_bytes, training_process
from edgeft.finetune.feeds import Augment, Feed, PixelFeed, TokenFeed
from edgeft.finetune.loop import Fit, Loop, Phase
from edgeft.finetune.optimizers import rates_by_depth
from edgeft.finetune.rewriting import rewriting
from edgeft.models.checkpoint import CheckpointMeta, save, write_meta
from edgeft.models.config import ModelConfig
from edgeft.models.pixels import Normalizer
from edgeft.models.sources import Created, create_with_notes
from edgeft.models.stages import Groups, depth_groups


@dataclass(frozen=True, slots=True)
class Session:
    """A model and its data, ready to train."""

    ctx: Context
    data: Dataset
    module: nn.Module
    groups: Groups
    config: TrainConfig
    accelerate: Accelerator
    notes: tuple[str, ...]
    sources: Inputs

    @property
    def head(self) -> int:
        """Index of the head among the groups."""
        return len(self.groups) - 1

    def augment(self) -> Augment | None:
        """Return the recipe's augmentation, or None where there is none."""
        return build(self.config.augment) if self.config.augment else None

    def feed(self) -> Feed:
        """Return the feed of the whole network."""
        return self.token_feed() if self.data.is_text else self.pixel_feed()

    def token_feed(self) -> TokenFeed:
        """Return the feed of a whole network of texts."""
        config = self.config.augment_text
        with self.accelerate.main_process_first():  # the first one translates, the others read what it kept
            rewrite = rewriting(self.ctx, self.data, config, self.sources) if config.changes else None
        return TokenFeed(self.data.tokens, self.accelerate.device, rewrite)

    def pixel_feed(self) -> PixelFeed:
        """Return the feed of a whole network of images."""
        normalize = Normalizer(self.data.input, self.accelerate.device)
        return PixelFeed(self.data.pixels, normalize, self.augment(), self.ctx.seed_for("augment"))

    def checkpoint(self) -> CheckpointMeta:
        """Return what the model is."""
        return CheckpointMeta.of(self.module, self.config.model, self.data.classes, self.data.contract)

    @property
    def samples(self) -> int:
        """Rows that are trained on."""
        return len(self.data.indices("train"))

    def trained(self, phases: Sequence[Phase]) -> dict[str, nn.Parameter]:
        """Return the parameters that any of `phases` trains, by name."""
        return {name: each for phase in phases for name, each in phase.trained(self.module, self.groups).items()}

    def loop(self) -> Loop:
        """Return the training loop, with the recipe's peak learning rates from stem to head."""
        config = self.config
        rates = rates_by_depth(len(self.groups), config.lr, config.head_lr_factor, config.lr_decay)
        return Loop(self.ctx, self.data, self.module, self.groups, rates, self.config, self.accelerate)


@contextmanager
def session(
    ctx: Context, inputs: Inputs, config: TrainConfig, make: Callable[[Dataset], Created] | None = None
) -> Iterator[Session]:
    """Open the data, create the model on its device; torch's global state is restored at the end.

    Args:
        ctx: where to write.
        inputs: "data", and what the model's weights name.
        config: the method's settings.
        make: the model for the data; None takes `config.model`.

    Raises:
        DataError: the data folder or the weights cannot be used.
        UsageError: unknown architecture, or a GPU is asked for and there is none.
    """
    with training_process(ctx.seed_for("finetune"), ctx.threads):
        data = Dataset.open(inputs["data"])
        for name in ("augment", "mixup", "cutmix"):
            if data.is_text and getattr(config, name):
                raise UsageError(f"finetune.{name}: changes images, and the data are texts", hint="remove it")
        if data.mix is not None and config.sampling == "balanced":
            raise UsageError(
                "finetune.sampling: balanced draws by class, data.mix by domain", hint="keep one of the two"
            )
        if config.augment_text.changes and not data.is_text:
            raise UsageError(
                "finetune.augment_text: changes texts, and the data are images", hint="use finetune.augment"
            )
        created = make(data) if make is not None else pretrained(ctx, inputs, config.model, data)
        accelerate = accelerator(config.device, config.precision)
        module = created.module.to(accelerate.device)
        yield Session(ctx, data, module, depth_groups(module), config, accelerate, created.notes, inputs)


def pretrained(ctx: Context, inputs: Inputs, model: ModelConfig, data: Dataset) -> Created:
    """Return the pretrained `model` with a new head for `data`: what is trained, and what adapters go back into.

    Raises:
        DataError: the weights cannot be used.
        UsageError: unknown architecture.
    """
    return create_with_notes(model, inputs.get("weights"), data.classes, ctx.seed_for("head"), data.vocabulary)


def part_writer(opened: Session, phases: Sequence[Phase]) -> Callable[[Session], None]:
    """Return what writes only the weights that `phases` train, and the statistics that move with them.

    Call it before training: it remembers what the base was.
    """
    base, before = adapters.base_digest(opened.module), adapters.statistics(opened.module)

    def write(run: Session) -> None:
        after = adapters.statistics(run.module)
        moved = {name: each for name, each in after.items() if not torch.equal(each, before[name])}
        adapters.write(run.ctx.folder, run.trained(phases) | moved, adapters.own_settings(), base, run.samples)
        write_meta(run.ctx.folder, run.checkpoint())

    return write


def finish(
    run: Session,
    fit: Fit,
    phases: Sequence[Phase],
    notes: Sequence[str] = (),
    timings: dict[str, Json] | None = None,
    *,
    write: Callable[[Session], None] | None = None,
) -> StageResult:
    """Write the best weights and say what was measured.

    Args:
        run: the session.
        fit: what the loop found.
        phases: what was trained.
        notes: what a reader must know.
        timings: beside the loop's.
        write: how the weights are written; None writes a checkpoint folder.
    """
    run.module.load_state_dict(fit.best)
    folder, config = run.ctx.folder, run.config
    if write is None:
        save(folder, run.module, run.checkpoint())
    else:
        write(run)
    write_atomic(folder / "history.json", json.dumps(fit.history, indent=2) + "\n")
    trained = sum(parameter.numel() for parameter in run.trained(phases).values())
    total = sum(parameter.numel() for parameter in run.module.parameters())
    best = fit.history[fit.best_epoch]
    measurements: dict[str, Json] = {
        "epochs": len(fit.history),
        "best_epoch": fit.best_epoch,
        "n_train": run.samples,
        "n_val": len(run.data.indices("val")),
        **{name: value for name, value in best.items() if name.startswith("val_")},
        "trainable_parameters": trained,
        "parameters": total,
        "trainable_share": trained / total,
    }
    stopped = config.epochs - len(fit.history)
    early = [f"stopped {stopped} epochs early: {config.metric} did not improve"] if stopped else []
    return StageResult(folder, measurements, (*run.notes, *notes, *early), _timings(fit) | (timings or {}))


def _timings(fit: Fit) -> dict[str, Json]:
    training = sum(seconds for _, seconds, _ in fit.seconds)
    return {
        "seconds_per_epoch": [round(sum(parts), 3) for parts in fit.seconds],
        "feature_seconds": round(sum(seconds for seconds, _, _ in fit.seconds), 3),
        "train_seconds": round(training, 3),
        "validation_seconds": round(sum(seconds for _, _, seconds in fit.seconds), 3),
        "train_images_per_second": round(fit.images / training, 2) if training else None,
        "peak_memory_bytes": peak_memory_bytes(),
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }

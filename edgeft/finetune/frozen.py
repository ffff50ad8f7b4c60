"""Train a new head only: each backbone feature is computed once per view and read from a cache afterwards."""

from edgeft.core.stage import Context, Inputs, StageResult
from edgeft.finetune import features
from edgeft.finetune.config import FrozenConfig
from edgeft.finetune.loop import Phase
from edgeft.finetune.session import finish, part_writer, session


def run(ctx: Context, inputs: Inputs, config: FrozenConfig) -> StageResult:
    """Fit the classifier on cached features and write what was trained.

    Raises:
        DataError: the data folder or the weights cannot be used.
        UsageError: the settings cannot be used, or training diverged.
    """
    with session(ctx, inputs, config) as opened:
        views = min(config.views if config.augment else 1, config.epochs)
        images = views * len(opened.data.indices("train")) + len(opened.data.indices("val"))
        cache, engine = features.base_cache(opened, config, opened.head, images)
        phases = [Phase(0, config.epochs, boundary=opened.head)]
        write = part_writer(opened, phases)
        fit = opened.loop().run(phases, lambda _: features.feed(cache, opened, config))
        seconds = sum(prepare for prepare, _, _ in fit.seconds)
        rate = round(cache.computed / seconds, 2) if cache.computed and seconds else None
        note = f"features: {cache.computed} forward passes of the frozen layers by {engine}, {views} view(s) per image"
        return finish(opened, fit, phases, [note], {"feature_images_per_second": rate}, write=write)

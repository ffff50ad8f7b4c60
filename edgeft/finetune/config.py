"""The `finetune:` block: how a pretrained classifier is trained. Imports pydantic and the standard library only."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from edgeft.config import Config
from edgeft.core.metrics import Metric
from edgeft.data.augment_config import AugmentSpec
from edgeft.data.text.augment_config import TextAugment
from edgeft.models.config import ModelConfig

Family = Literal["convolutions", "patches", "texts"]
"""Of models: convolutional networks and vision transformers for images, encoders for texts."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class TrainConfig(Config):
    """What every method of the training loop shares."""

    works_on: ClassVar[frozenset[Family]] = frozenset({"convolutions", "patches", "texts"})
    """What the method can train."""
    parallel: ClassVar[bool] = True
    """Whether several processes can train together."""
    block: ClassVar[str] = "finetune"
    """The recipe's block that says how it is trained."""

    model: ModelConfig
    """Filled from the recipe's `model:` block."""
    epochs: PositiveInt = 8
    """Passes over the training rows."""
    batch_size: PositiveInt = 32
    """Images per forward pass; an epoch is cut into batches of equal size (plus or minus one)."""
    accumulate: PositiveInt = 1
    """Batches per optimizer step; gradients are averaged over their images."""

    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """Training loss; `focal` gives less weight to images that are already right."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of each label that is spread evenly over all classes."""
    focal_gamma: NonNegativeFloat = 2.0
    """Focusing power of the focal loss; 0 is cross entropy."""
    class_weights: Literal["none", "balanced"] | dict[str, PositiveFloat] = "none"
    """`balanced` weighs each class by 1 / its share, or give a weight per class name."""
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    """`balanced` draws every class equally often, repeating rows of the small ones."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """SGD uses Nesterov momentum."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of the trunk's topmost trained group."""
    head_lr_factor: PositiveFloat = 5.0
    """The new classifier learns with lr times this."""
    lr_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Each group learns with its upper neighbour's rate times this; 1 gives all of the trunk the same."""
    weight_decay: NonNegativeFloat = 0.05
    """Decoupled for AdamW; never applied to biases and BatchNorm."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Of SGD."""
    schedule: Literal["cosine", "one_cycle", "step", "constant"] = "cosine"
    """How the learning rate moves over all steps."""
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Share of all steps in which the rate rises to its peak."""
    step_every: Annotated[float, Field(gt=0.0, le=1.0)] = 1 / 3
    """Of schedule `step`: share of all steps after which the rate is multiplied by `step_factor`."""
    step_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Of schedule `step`."""
    clip_norm: PositiveFloat | None = 5.0
    """Largest norm of the whole gradient; null does not clip."""

    augment: AugmentSpec = ()
    """Augmentation of the training images: a preset or a list of steps."""
    augment_text: TextAugment = TextAugment()
    """Augmentation of the training texts."""
    mixup: NonNegativeFloat = 0.0
    """Mix images of a batch pairwise, by shares drawn from Beta(mixup, mixup), e.g. 0.2; 0 mixes none."""
    cutmix: NonNegativeFloat = 0.0
    """Paste a box of another image, its area drawn from Beta(cutmix, cutmix), e.g. 1; with `mixup` they take turns."""
    batch_norm: Literal["train", "frozen"] = "train"
    """`frozen` keeps the pretrained statistics of every BatchNorm."""
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay of an exponential moving average of the weights, e.g. 0.999: it is validated and kept in their place."""
    metric: Metric | Literal["loss"] = "loss"
    """The validation metric that picks the best checkpoint and drives early stopping."""
    early_stop: PositiveInt | None = None
    """Stop after so many epochs in a row without a better checkpoint."""

    gradient_checkpointing: bool = False
    """Compute the activations inside each group of layers again for the backward pass instead of keeping them: less
    memory, about a third more time, the same numbers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""
    processes: PositiveInt = 1
    """Train in so many processes of this machine, each with its part of every batch: one a GPU, or on its share of the
    CPU's threads. Needs batch_norm: frozen where there is BatchNorm."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Mixed precision of forward and backward passes; fp16 needs a GPU."""
    checkpoint_seconds: NonNegativeFloat = 60.0
    """A killed run loses at most so many seconds of training."""

    @model_validator(mode="after")
    def _fp16_needs_gpu(self) -> Self:
        if self.precision == "fp16" and self.device == "cpu":
            msg = "precision fp16 needs a GPU; use bf16 or fp32 with device cpu"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _can_be_shared(self) -> Self:
        if self.processes > 1 and not self.parallel:
            msg = "processes: this method runs in one, which keeps what it computed once; leave it out"
            raise ValueError(msg)
        return self


class FullConfig(TrainConfig):
    """Train every layer from the first step."""


class FirstNFrozenConfig(TrainConfig):
    """Keep the first groups as they are, statistics included, and train all others from the first step."""

    frozen_groups: PositiveInt = 2
    """Groups at the stem that are never trained."""


class BitFitConfig(TrainConfig):
    """Train biases, the scales of normalisations, and the head."""

    lr: PositiveFloat = 2e-3
    """Peak learning rate."""


class LoraConfig(TrainConfig):
    """Train low-rank adapters beside linear layers and convolutions, and the head; merged before the export."""

    lr: PositiveFloat = 5e-4
    """Peak learning rate of the adapters."""
    rank: PositiveInt = 8
    """Inner dimension of each adapter."""
    alpha: PositiveFloat = 16.0
    """The adapter's output is scaled by alpha / rank."""
    adapter_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability of dropping an adapter's input while training."""
    targets: tuple[str, ...] = ("auto",)
    """Ends of the names of the layers that get one, e.g. [query, value]; `auto`: every linear layer and ungrouped
    convolution but the head."""
    dora: bool = False
    """Weight-decomposed adapters: a trained magnitude for each output."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead."""
    batch_norm: Literal["frozen"] = "frozen"
    """The base stays as it is, statistics included."""


class Ia3Config(TrainConfig):
    """Train one factor for each output of linear layers and convolutions, and the head; merged before the export."""

    lr: PositiveFloat = 5e-3
    """Peak learning rate of the factors."""
    targets: tuple[str, ...] = ("auto",)
    """As in `lora`."""
    batch_norm: Literal["frozen"] = "frozen"
    """The base stays as it is, statistics included."""


class AdapterConfig(TrainConfig):
    """Train bottleneck adapters behind sub-layers or blocks, and the head; the adapters stay in the model."""

    lr: PositiveFloat = 1e-3
    """Peak learning rate of the adapters."""
    bottleneck: PositiveInt = 32
    """Inner width of each adapter."""
    targets: tuple[str, ...] = ("auto",)
    """Ends of the names of the modules that get one behind them; `auto`: attention and feed-forward of a text encoder,
    the blocks of an image model."""
    batch_norm: Literal["frozen"] = "frozen"
    """The base stays as it is, statistics included."""


class PromptConfig(TrainConfig):
    """Train vectors that stand beside those of the input, and the head; they stay in the model."""

    works_on: ClassVar[frozenset[Family]] = frozenset({"patches", "texts"})

    lr: PositiveFloat = 1e-2
    """Peak learning rate of the vectors."""
    head_lr_factor: PositiveFloat = 1.0
    """The head learns with lr times this."""
    prompts: PositiveInt = 16
    """How many."""
    batch_norm: Literal["frozen"] = "frozen"
    """The base stays as it is."""


class PrefixConfig(TrainConfig):
    """Train keys and values that each attention sees beside its own, and the head; they stay in the model."""

    works_on: ClassVar[frozenset[Family]] = frozenset({"texts"})

    lr: PositiveFloat = 1e-2
    """Peak learning rate of keys and values."""
    head_lr_factor: PositiveFloat = 1.0
    """The head learns with lr times this."""
    prefixes: PositiveInt = 16
    """How many in each layer."""
    batch_norm: Literal["frozen"] = "frozen"
    """The base stays as it is."""


class HybridConfig(TrainConfig):
    """Train by several methods, one after the other, each from where the last one ended."""

    parallel: ClassVar[bool] = False
    steps: tuple[dict[str, Any], ...] = ({"method": "frozen", "epochs": 5}, {"method": "full"})
    """Each is a `finetune:` block of its own; what it leaves out is taken from here. The default trains a new head
    first and then everything, so that a random head does not spoil what was pretrained (Kumar et al. 2022)."""

    def step_configs(self) -> tuple[tuple[str, TrainConfig], ...]:
        """Return the steps' methods and their full settings.

        Raises:
            ValueError: a step names no method that can be one, or a setting is wrong.
        """
        shared = {name: getattr(self, name) for name in self.model_fields_set - {"steps"}}
        found = []
        for number, step in enumerate(self.steps, 1):
            values = dict(step)
            name = values.pop("method", None)
            if name not in STEPS:
                msg = f"step {number}: method {name!r} is not one of {', '.join(STEPS)}"
                raise ValueError(msg)
            if values.get("processes", 1) != 1:
                msg = f"step {number}: processes: the steps run in one"
                raise ValueError(msg)
            config = STEPS[name]
            fitting = {key: value for key, value in shared.items() if key in config.model_fields}
            found.append((name, config(**{**fitting, **values})))
        return tuple(found)

    @model_validator(mode="after")
    def _has_steps(self) -> Self:
        if not self.steps:
            msg = "steps: none are given"
            raise ValueError(msg)
        self.step_configs()
        return self


class NoneConfig(Config):
    """Train nothing: `model.weights` names the folder of a checkpoint, e.g. one that `edgeft merge` wrote."""

    works_on: ClassVar[frozenset[Family]] = frozenset()

    model: ModelConfig
    """Filled from the recipe's `model:` block."""


class MergeConfig(Config):
    """How adapters are put into their base: folded into its weights where they can be."""

    model: ModelConfig
    """Filled from the recipe's `model:` block."""


class CachedConfig(TrainConfig):
    """A method that computes what its frozen layers put out once per view of an image."""

    parallel: ClassVar[bool] = False
    views: PositiveInt = 1
    """Cached views per image: the first is the image itself, the others are augmented; epochs take turns."""
    engine: Literal["auto", "torch", "onnxruntime"] = "auto"
    """What computes the frozen layers; `auto` takes onnxruntime where its export pays (engines.py)."""

    @model_validator(mode="after")
    def _mixes_nothing(self) -> Self:
        if self.mixup or self.cutmix:
            msg = "mixup and cutmix need fresh images, and this method stores what frozen layers make of them"
            raise ValueError(msg)
        return self


class FrozenConfig(CachedConfig):
    """Train a new head on the features of the pretrained trunk."""

    @model_validator(mode="after")
    def _texts_are_not_fresh(self) -> Self:
        if self.augment_text.changes:
            msg = "augment_text needs fresh texts, and this method stores what frozen layers make of them"
            raise ValueError(msg)
        return self

    lr: PositiveFloat = 1e-2
    """Peak learning rate of the head."""
    head_lr_factor: PositiveFloat = 1.0
    """The head learns with lr times this."""
    epochs: PositiveInt = 10
    """Passes over the cached features."""


class GradualConfig(CachedConfig):
    """Train the head, then let go of the groups below it one by one, the lower ones with smaller learning rates."""

    views: PositiveInt = 3
    """Cached views per image while part of the trunk is frozen; afterwards every epoch sees fresh augmentations."""
    head_epochs: NonNegativeInt = 1
    """Epochs in which only the head is trained."""
    unfreeze_every: PositiveInt = 1
    """Epochs between two releases."""
    groups_per_release: PositiveInt = 2
    """Depth groups released at once."""
    frozen_groups: NonNegativeInt = 0
    """Groups at the stem that are never trained; with 0 the whole network is trained in the end."""
    lr_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Each group learns with its upper neighbour's rate times this."""
    cache_limit_mb: PositiveInt = 4096
    """Activations above this size are computed anew each epoch instead of stored."""


STEPS: Mapping[str, type[TrainConfig]] = {
    "full": FullConfig,
    "frozen": FrozenConfig,
    "gradual": GradualConfig,
    "first_n_frozen": FirstNFrozenConfig,
    "bitfit": BitFitConfig,
    "lora": LoraConfig,
    "ia3": Ia3Config,
    "adapter": AdapterConfig,
    "prompt": PromptConfig,
    "prefix": PrefixConfig,
}
"""The methods that may be steps of `hybrid`."""

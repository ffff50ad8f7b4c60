"""The one training loop, on HF Accelerate: device, mixed precision, clipping, resume, early stopping, best checkpoint.

A method says which depth groups are trained in which epochs (`Phase`) and what feeds them (`Feed`); the loop does the
rest. One optimizer step sees `accumulate` batches, each weighted by its share of the images.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeft.core.digest import sha256_json
from edgeft.core.errors import UsageError
from edgeft.core.events import Progress, Step
from edgeft.core.stage import Context, Json
from edgeft.data.dataset import Dataset
from edgeft.finetune import evaluate, objectives, optimizers, sampling
from edgeft.finetune.averaging import MovingAverage
from edgeft.finetune.config import TrainConfig
from edgeft.finetune.feeds import Feed
from edgeft.finetune.kernels import FastKernels
from edgeft.finetune.mixing import mix
from edgeft.finetune.recompute import Recomputed
from edgeft.finetune.sampling import Rows
from edgeft.finetune.schedules import progress, schedule
from edgeft.finetune.sharing import Sharing
from edgeft.finetune.state import Cursor, Saved, Weights, load_state_, save_state
from edgeft.models.stages import Groups, chain

_NAMED = 5
"""Images named in an error."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Epochs first <= e < last train the groups from `boundary` up to the head; those below it are frozen.

    Of these groups only parameters whose name `selects` is true of are trained; None trains all.
    """

    first: int
    last: int
    boundary: int
    selects: Callable[[str], bool] | None = None

    def trained(self, module: nn.Module, groups: Groups) -> dict[str, nn.Parameter]:
        """Return the parameters of `module` that this phase trains, by name."""
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        found = {}
        for _, group in groups[self.boundary :]:
            for parameter in group.parameters():
                name = names[id(parameter)]
                if self.selects is None or self.selects(name):
                    found[name] = parameter
        return found


@dataclass(frozen=True, slots=True)
class Guidance:
    """A teacher whose answers are a part of the training loss.

    Args:
        answers: (dataset rows [n], epoch) -> what it says to what the feed gives, by name.
        loss: (logits [n, K], labels int64 [n], -1 where there is none, the teacher's answers) -> scalar: all of the
            loss but the labels' part.
        labels: the labels' share of the loss, 0..1; rows without one have no part in it.
    """

    answers: Callable[[Rows, int], Mapping[str, Tensor]]
    loss: Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
    labels: float


@dataclass(frozen=True, slots=True)
class Fit:
    """What a run of the loop found.

    Args:
        best: the weights of the best epoch.
        best_epoch: counted from 0.
        history: one entry per epoch, deterministic.
        seconds: per epoch of this process: preparing the feed, training, validating.
        images: training images that this process has seen.
    """

    best: Weights
    best_epoch: int
    history: tuple[dict[str, Json], ...]
    seconds: tuple[tuple[float, float, float], ...]
    images: int


class Loop:
    """Trains `module`, whose depth groups are `groups`, on `data`'s train rows.

    Args:
        ctx: seed, workspace and progress.
        data: the dataset.
        module: the classifier, on the accelerator's device.
        groups: its depth groups.
        rates: peak learning rate of each group.
        config: the method's settings.
        accelerate: from `accelerator`.
    """

    def __init__(
        self,
        ctx: Context,
        data: Dataset,
        module: nn.Module,
        groups: Groups,
        rates: Sequence[float],
        config: TrainConfig,
        accelerate: Accelerator,
    ) -> None:
        self._ctx, self._data, self._module, self._groups, self._config = ctx, data, module, groups, config
        self._accelerate = accelerate
        self._guidance: Guidance | None = None
        self._train, self._val = data.indices("train"), data.indices("val")
        self._labels = torch.from_numpy(data.labels)
        self._class_weights = objectives.class_weights(
            config.class_weights, data.labels[data.indices("train")], data.classes
        )
        self._objective = _objective(config, self._class_weights)
        self._schedule = schedule(config.schedule, config.warmup, config.step_every, config.step_factor)
        parameters = optimizers.parameter_groups(groups, rates, config.weight_decay)
        plain = optimizers.optimizer(config.optimizer, parameters, config.momentum, accelerate.device)
        self._optimizer = accelerate.prepare_optimizer(plain)
        plain_cpu = accelerate.device.type == "cpu" and config.precision == "fp32"
        self._kernels = FastKernels if plain_cpu else nullcontext
        self._best: Weights = {}
        self._average = MovingAverage(module, config.ema)
        self._sharing = Sharing(accelerate)
        self._saved = time.monotonic()
        self._images = 0

    def run(self, phases: Sequence[Phase], feed_for: Callable[[Phase], Feed], guidance: Guidance | None = None) -> Fit:
        """Train through all phases and return the best weights.

        Args:
            phases: what is trained when.
            feed_for: what feeds a phase.
            guidance: the teacher, where there is one.

        Raises:
            UsageError: the loss or the gradient is not finite; names the batch.
        """
        config, self._guidance = self._config, guidance
        if guidance is not None:
            self._train = np.concatenate([self._train, self._data.indices("unlabelled")])
        if self._sharing.processes > 1:
            self._require_no_statistics("processes", "would see one process's part of each batch in its statistics")
        key = sha256_json({"config": config.model_dump(mode="json"), "seed": self._ctx.seed, "n": len(self._data)})
        saved = load_state_(self._ctx.workspace, key, self._module, self._optimizer.optimizer)
        cursor, self._best, self._average.values = saved.cursor, saved.best, saved.average
        self._sharing.wait()  # until all have read it: from here on one of them writes it
        if saved.scaler is not None and self._accelerate.scaler is not None:
            self._accelerate.scaler.load_state_dict(saved.scaler)
        seconds: list[tuple[float, float, float]] = []
        for phase in phases:
            if cursor.epoch >= phase.last:
                continue
            self._set_trainable_(phase)
            self._average.enrol_()
            layers, feed = self._layers(phase), feed_for(phase)
            while cursor.epoch < phase.last and not self._exhausted(cursor):
                clock = [time.perf_counter()]
                feed.prepare(cursor.epoch)
                clock.append(time.perf_counter())
                cursor = self._epoch(cursor, layers, feed)
                clock.append(time.perf_counter())
                with self._average.in_place():
                    cursor = self._validate(cursor, layers, feed)
                clock.append(time.perf_counter())
                self._save_when_due(cursor)
                seconds.append((clock[1] - clock[0], clock[2] - clock[1], clock[3] - clock[2]))
        return Fit(self._best, cursor.best_epoch, cursor.history, tuple(seconds), self._images)

    def _layers(self, phase: Phase) -> nn.Module:
        groups = self._groups[phase.boundary :]
        if not self._config.gradient_checkpointing:
            return chain(groups)
        self._require_no_statistics("gradient_checkpointing", "would see each batch twice in its statistics")
        return chain([(name, Recomputed(group, self._kernels)) for name, group in groups])

    def _require_no_statistics(self, setting: str, reason: str) -> None:
        if self._config.batch_norm == "train":
            normed = [name for name, part in self._module.named_modules() if isinstance(part, _BatchNorm)]
            if normed:
                raise UsageError(
                    f"{self._config.block}.{setting}: {normed[0]} {reason}",
                    hint=f"keep the pretrained ones: {self._config.block}.batch_norm: frozen",
                )

    def _exhausted(self, cursor: Cursor) -> bool:
        patience = self._config.early_stop
        return patience is not None and cursor.best_epoch >= 0 and cursor.epoch - cursor.best_epoch > patience

    def _set_trainable_(self, phase: Phase) -> None:
        trained = phase.trained(self._module, self._groups)
        for name, parameter in self._module.named_parameters():
            parameter.requires_grad_(name in trained)
        for _, group in self._groups:
            group.eval()

    def _epoch(self, cursor: Cursor, layers: nn.Module, feed: Feed) -> Cursor:
        epoch, config = cursor.epoch, self._config
        layers.train()
        if config.batch_norm == "frozen":
            for part in layers.modules():
                if isinstance(part, _BatchNorm):
                    part.eval()
        steps = self._steps(epoch)
        self._sharing.require([self._val, *(batch for batches in steps for batch in batches)])
        for step in range(cursor.step, len(steps)):
            factor = self._schedule(progress(epoch * len(steps) + step, config.epochs * len(steps)))
            optimizers.set_rates_(self._optimizer.optimizer, factor)
            loss = self._step(layers, feed, epoch, step, steps[step])
            self._average.update_(epoch * len(steps) + step)
            rows = sum(len(batch) for batch in steps[step])
            cursor = replace(cursor, step=step + 1, loss_sum=cursor.loss_sum + loss * rows, seen=cursor.seen + rows)
            self._images += rows
            text = f"epoch {epoch + 1}/{config.epochs}, loss {cursor.loss_sum / cursor.seen:.3f}"
            self._ctx.emit(Step(config.lr * factor, loss))
            self._ctx.emit(Progress("finetune", epoch * len(steps) + step + 1, config.epochs * len(steps), text))
            self._save_when_due(cursor)
        return cursor

    def _steps(self, epoch: int) -> list[list[Rows]]:
        """Return the batches of each optimizer step of `epoch`."""
        config, seed = self._config, sampling.epoch_seed(self._ctx.seed, "order", epoch)
        if self._data.mix is not None:
            kinds = self._data.domains()[self._train]
            order = sampling.mixed(self._train, kinds, list(self._data.mix.values()), seed)
        elif config.sampling == "balanced":
            order = sampling.balanced(self._train, self._data.labels[self._train], seed)
        else:
            order = sampling.shuffled(self._train, seed)
        batches = sampling.batches(order, config.batch_size)
        return [batches[start : start + config.accumulate] for start in range(0, len(batches), config.accumulate)]

    def _step(self, layers: nn.Module, feed: Feed, epoch: int, step: int, batches: list[Rows]) -> float:
        """Take one optimizer step and return the mean loss over its images."""
        rows = np.concatenate(batches)
        total = 0.0
        for part, whole in enumerate(batches):
            batch, number = self._sharing.rows(whole), self._sharing.number(step * self._config.accumulate + part)
            torch.manual_seed(sampling.epoch_seed(self._ctx.seed, "dropout", epoch, number))
            for piece in feed.parts(batch):
                loss = self._loss(layers, feed, piece, epoch, number) * (self._weight(piece) / self._weight(rows))
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise self._diverged("loss", value, epoch, number, piece)
                self._accelerate.backward(loss)
                total += value
        return self._update(epoch, step, rows, total)

    def _weight(self, rows: Rows) -> float:
        """Return what the mean loss over `rows` weighs in a mean over more of them."""
        if self._class_weights is None or self._guidance is not None:
            return len(rows)
        return float(self._class_weights[self._labels[rows]].sum())

    def _loss(self, layers: nn.Module, feed: Feed, batch: Rows, epoch: int, number: int) -> Tensor:
        inputs, labels = feed.train(batch, epoch, number), self._labels[batch].to(self._accelerate.device)
        answers = None if self._guidance is None else self._guidance.answers(batch, epoch)
        mixup, cutmix = self._config.mixup, self._config.cutmix
        seed = sampling.epoch_seed(self._ctx.seed, "mix", epoch, number)
        mixed = mix(inputs, labels, mixup, cutmix, seed) if isinstance(inputs, Tensor) and (mixup or cutmix) else None
        with self._accelerate.autocast(), self._kernels():
            logits: Tensor = layers(inputs if mixed is None else mixed.inputs)
        if self._guidance is not None and answers is not None:
            return self._guided(self._guidance, logits, labels, answers)
        loss = self._objective(logits, labels)
        if mixed is None:
            return loss
        return mixed.share * loss + (1 - mixed.share) * self._objective(logits, mixed.partners)

    def _guided(self, guidance: Guidance, logits: Tensor, labels: Tensor, answers: Mapping[str, Tensor]) -> Tensor:
        loss, known = guidance.loss(logits, labels, answers), labels >= 0
        if not guidance.labels or not known.any():
            return loss
        return loss + guidance.labels * known.float().mean() * self._objective(logits[known], labels[known])

    def _update(self, epoch: int, step: int, rows: Rows, loss: float) -> float:
        """Move the weights, and return `loss` summed over all processes."""
        parameters = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        loss = self._sharing.sum_(parameters, loss)
        limit = self._config.clip_norm if self._config.clip_norm is not None else math.inf
        norm = float(self._accelerate.clip_grad_norm_(parameters, limit))
        if not math.isfinite(norm) and self._accelerate.scaler is None:  # fp16's scaler skips such a step by itself
            raise self._diverged("gradient norm", norm, epoch, step, rows)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss

    def _validate(self, cursor: Cursor, layers: nn.Module, feed: Feed) -> Cursor:
        layers.eval()
        config, labels = self._config, self._data.labels[self._val]
        with self._accelerate.autocast():
            part = evaluate.logits(layers, feed.evaluate, self._data, self._sharing.rows(self._val))
        scores = self._sharing.together(part)
        values = evaluate.metrics(scores, labels, config.metric)
        entry: dict[str, Json] = {"epoch": cursor.epoch, "train_loss": cursor.loss_sum / cursor.seen}
        entry |= {f"val_{name}": value for name, value in values.items()}
        entry["lr"] = max(float(group["lr"]) for group in self._optimizer.optimizer.param_groups)
        value = evaluate.goodness(config.metric, values)
        best = (cursor.best_epoch, cursor.best_value)
        if value > cursor.best_value:
            best = (cursor.epoch, value)
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in self._module.state_dict().items()}
        return Cursor(cursor.key, cursor.epoch + 1, 0, 0.0, 0, (*cursor.history, entry), *best)

    def _save_when_due(self, cursor: Cursor) -> None:
        if self._sharing.writes and time.monotonic() - self._saved >= self._config.checkpoint_seconds:
            scaler = self._accelerate.scaler
            told = None if scaler is None else scaler.state_dict()
            saved = Saved(cursor, self._best, self._average.values, told)
            save_state(self._ctx.workspace, saved, self._module, self._optimizer.optimizer)
            self._saved = time.monotonic()

    def _diverged(self, what: str, value: float, epoch: int, batch: int, rows: Rows) -> UsageError:
        named = ", ".join(self._data.rows[int(row)].path for row in rows[:_NAMED])
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        block, kind = self._config.block, "texts" if self._data.is_text else "images"
        return UsageError(
            f"the {what} became {value} in epoch {epoch + 1}, batch {batch + 1}: {named}{more}",
            hint=f"lower {block}.lr, raise {block}.warmup, or look at these {kind}",
        )


def _objective(config: TrainConfig, weights: Tensor | None) -> objectives.Objective:
    if config.loss == "focal":
        return objectives.focal(config.focal_gamma, config.label_smoothing, weights)
    return objectives.cross_entropy(config.label_smoothing, weights)

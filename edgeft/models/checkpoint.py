"""The checkpoint folder: `model.safetensors` (weights only) and `model.json` (what they are)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import DataError
from edgeft.core.stage import Json
from edgeft.models import architectures, insertion, inserts, shapes
from edgeft.models.config import ModelConfig
from edgeft.models.inserts import Insert
from edgeft.runtime.encode import Contract, contract_from_json

WEIGHTS = "model.safetensors"
META = "model.json"
_SCHEMA = 2


@dataclass(frozen=True, slots=True)
class CheckpointMeta:
    """What the weights are.

    Args:
        architecture: "timm/NAME", "torchvision/NAME" or "transformers".
        classes: class names in output order.
        input: how an image or a text becomes the model's input.
        dropout: probability in front of the classifier while training.
        encoder: of a text model, transformers' configuration as JSON values; None of an image model.
        pooling: of a text model.
        inserts: what was put into the architecture.
        dropped: blocks of the architecture that were left out.
        narrowed: whether its layers are as wide as the tensors say, not as the architecture does.
    """

    architecture: str
    classes: tuple[str, ...]
    input: Contract
    dropout: float
    encoder: dict[str, Any] | None = None
    pooling: str | None = None
    inserts: tuple[Insert, ...] = ()
    dropped: tuple[str, ...] = ()
    narrowed: bool = False

    @classmethod
    def of(cls, module: nn.Module, config: ModelConfig, classes: Sequence[str], contract: Contract) -> "CheckpointMeta":
        """Return what `module`, made from `config`, is."""
        if not config.takes_texts:
            dropped = shapes.dropped(module)
            return cls(
                *(config.base, tuple(classes), contract, config.dropout),
                inserts=inserts.outside(inserts.of(module), dropped),
                dropped=dropped,
                narrowed=getattr(module, shapes.NARROWED, False),
            )
        from edgeft.models import text  # brings transformers, which image models do without

        if not isinstance(module, text.TextClassifier):
            raise TypeError(f"{config.base}: {type(module).__name__} is no text classifier")
        encoder, pooling = text.config_json(module), config.text.pooling
        return cls(config.base, tuple(classes), contract, config.dropout, encoder, pooling, inserts.of(module))

    def to_json(self) -> dict[str, Json]:
        """Return what `model.json` holds."""
        return {
            "schema": _SCHEMA,
            "architecture": self.architecture,
            "classes": list(self.classes),
            "input": self.input.to_json(),
            "dropout": self.dropout,
            "encoder": self.encoder,
            "pooling": self.pooling,
            "inserts": [insert.to_json() for insert in self.inserts],
            "dropped": list(self.dropped),
            "narrowed": self.narrowed,
        }


def save(folder: Path, module: nn.Module, meta: CheckpointMeta) -> None:
    """Write `module`'s state and `meta` into `folder`; equal states give equal bytes.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    write_atomic(folder / WEIGHTS, to_bytes(tensors))
    write_meta(folder, meta)


def write_meta(folder: Path, meta: CheckpointMeta) -> None:
    """Write `folder`'s model.json alone."""
    write_atomic(folder / META, json.dumps(meta.to_json(), indent=2, ensure_ascii=False) + "\n")


def read_meta(folder: Path) -> CheckpointMeta:
    """Read `folder`'s model.json.

    Raises:
        DataError: it is missing or damaged.
    """
    path = folder / META
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        return CheckpointMeta(
            architecture=str(values["architecture"]),
            classes=tuple(values["classes"]),
            input=contract_from_json(values["input"]),
            dropout=float(values["dropout"]),
            encoder=values["encoder"],
            pooling=values["pooling"],
            inserts=tuple(Insert.from_json(each) for each in values.get("inserts", ())),
            dropped=tuple(values.get("dropped", ())),
            narrowed=bool(values.get("narrowed", False)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a checkpoint's model.json: {error!r}", hint="run `edgeft build` again") from error


def load(folder: Path) -> tuple[nn.Module, CheckpointMeta]:
    """Return the module of `folder`, in eval mode and channels_last, and what it is.

    Raises:
        DataError: a file is missing or damaged, or the tensors do not fit the architecture.
    """
    meta = read_meta(folder)
    path = folder / WEIGHTS
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read: {error}", hint="run `edgeft build` again") from error
    with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
        module = _architecture(meta)
    try:
        for name in meta.dropped:
            shapes.drop_(module, name)
        for insert in meta.inserts:
            insertion.insert_(module, insert)
        if meta.narrowed:
            shapes.fit_(module, tensors)
        state = module.state_dict()  # with the versions of its layers, which MNASNet asks for
        state.clear()
        state.update(tensors)
        module.load_state_dict(state)
    except (AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(f"{path}: tensors do not fit {meta.architecture}: {reason}") from error
    return (module.eval() if meta.encoder else architectures.channels_last_(module.eval())), meta


def _architecture(meta: CheckpointMeta) -> nn.Module:
    if meta.encoder is not None:
        from edgeft.models import text  # brings transformers, which image models do without

        return text.from_config(meta.encoder, len(meta.classes), meta.pooling or "mean", meta.dropout)
    library, _, name = meta.architecture.partition("/")
    module = architectures.build(library, name, dropout=meta.dropout, hub=False)
    architectures.replace_classifier_(module, len(meta.classes), meta.dropout)
    return module

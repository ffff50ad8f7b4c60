"""What is trained beside a model's own weights: put in, written alone, put back.

By peft, and folded into the weights in the end:

    lora    y = W x + b + (alpha / r) B A x                      (Hu et al. 2021), DoRA and rsLoRA as options
    ia3     y = (l * W) x + l * b                                (Liu et al. 2022), one factor l for each output

By `models.insertion`, and kept in the model: adapter, prompt, prefix.

Or a part of the base's own weights (`OWN`): a head, biases, the upper groups, what a sequence of methods changed.

The folder of a model trained so holds what was trained (`adapter.safetensors`: adapters and head) and what is needed to
put it back (`adapter.json`); the base stays where it is. `merge` makes one model of both before anything is exported.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import DataError, UsageError
from edgeft.finetune.config import Ia3Config, LoraConfig
from edgeft.models import insertion, inserts
from edgeft.models.architectures import classifier_prefix
from edgeft.models.inserts import Insert

WEIGHTS, META = "adapter.safetensors", "adapter.json"
AUTO: Final = "auto"
_NAME = "default"
_SCHEMA = 2
FOLDED = frozenset({"lora", "ia3"})
"""Kinds that become part of the base's weights; the others stay in the model."""
OWN: Final = "weights"
"""The kind of what is no adapter: weights of the base, in their place."""


def inject_(module: nn.Module, config: LoraConfig | Ia3Config, seed: int) -> tuple[str, ...]:
    """Put adapters beside layers of `module`, which then does what it did before; return the layers' names.

    Args:
        module: a classifier.
        config: which adapters, and where.
        seed: of what is random in them.

    Raises:
        UsageError: no layer's name ends as `targets` asks.
    """
    names = target_layers(module, config.targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(_peft_config(config, names), module, adapter_name=_NAME)
    return names


def target_layers(module: nn.Module, targets: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the linear layers and ungrouped convolutions that get an adapter; never the head.

    Raises:
        UsageError: there are none.
    """
    head = head_prefix(module)
    able = [
        name
        for name, layer in module.named_modules()
        if (isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1))
        and not f"{name}.".startswith(head)
    ]
    chosen = able if targets == (AUTO,) else [name for name in able if name.endswith(tuple(targets))]
    if not chosen:
        raise UsageError(
            f"finetune.targets: no linear layer or convolution ends in {' or '.join(targets)}",
            hint=f"there are, for example: {', '.join(able[:5])}",
        )
    return tuple(chosen)


def head_prefix(module: nn.Module) -> str:
    """Return the prefix of the classifier's parameters, e.g. "classifier."."""
    return "classifier." if hasattr(module, "pooling") else classifier_prefix(module)


def is_adapter(name: str) -> bool:
    """Return whether a parameter of an adapted module is an adapter's."""
    return inserts.is_inserted(name) or any(part in name for part in (".lora_", ".ia3_"))


def base_digest(module: nn.Module) -> str:
    """Return the sha256 of all weights of a plain `module` but the head's: what adapters were trained beside."""
    head, digest = head_prefix(module), hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not name.startswith(head):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def folded_settings(config: LoraConfig | Ia3Config, layers: tuple[str, ...]) -> dict[str, Any]:
    """Return what `put_back_` needs to know of adapters by peft beside `layers`."""
    kept = {"rank", "alpha", "dora", "rslora", "targets"}
    kind = "ia3" if isinstance(config, Ia3Config) else "lora"
    return {"kind": kind, "settings": config.model_dump(mode="json", include=kept), "layers": list(layers)}


def kept_settings(insert: Insert) -> dict[str, Any]:
    """Return what `put_back_` needs to know of modules that stay in the model."""
    return {"kind": insert.kind, "settings": insert.to_json(), "layers": list(insert.sites)}


def own_settings(added: Sequence[Insert] = ()) -> dict[str, Any]:
    """Return what `put_back_` needs to know of weights of the base itself, and of modules that were `added` to it."""
    return {"kind": OWN, "settings": {"inserts": [insert.to_json() for insert in added]}, "layers": []}


def statistics(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the buffers that are part of `module`'s state, e.g. BatchNorm's statistics."""
    kept = module.state_dict().keys()
    return {name: buffer.detach().clone() for name, buffer in module.named_buffers() if name in kept}


def write(folder: Path, trained: Mapping[str, Tensor], settings: Mapping[str, Any], base: str, samples: int) -> None:
    """Write what was trained, and how to put it back; equal weights give equal bytes.

    Args:
        folder: where to.
        trained: tensors by name: adapters and head.
        settings: by `folded_settings`, `kept_settings` or `own_settings`.
        base: `base_digest` of what they were trained beside.
        samples: rows that they were trained on.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in trained.items()}
    write_atomic(folder / WEIGHTS, to_bytes(tensors))
    meta = {"schema": _SCHEMA, **settings, "base": base, "samples": samples}
    write_atomic(folder / META, json.dumps(meta, indent=2) + "\n")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what `write` wrote: the description and the tensors.

    Raises:
        DataError: a file is missing or damaged.
    """
    try:
        meta = json.loads((folder / META).read_bytes())
        kinds = FOLDED | {OWN} | set(get_args(inserts.Kind))
        known = meta["schema"] == _SCHEMA and meta["kind"] in kinds and len(meta["base"]) > 0 and meta["samples"] > 0
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(
            f"{folder}: not a folder of adapters ({error})", hint="run `edgeft build` again, or name another folder"
        ) from error
    if not known:
        raise DataError(f"{folder}: adapters of schema {meta['schema']} and kind {meta['kind']!r} are not known")
    return meta, tensors


def put_back_(module: nn.Module, meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Put adapters that were read into the plain `module`, head included.

    Raises:
        DataError: they belong to another model.
    """
    names = tuple(meta["layers"])
    missing = sorted(set(names) - {name for name, _ in module.named_modules()})
    if missing:
        raise DataError(f"the adapters are of another model: it has no layer {missing[0]!r}")
    before = set(module.state_dict())
    if meta["kind"] in FOLDED:
        config = (Ia3Config if meta["kind"] == "ia3" else LoraConfig).model_construct(**meta["settings"])
        peft.inject_adapter_in_model(_peft_config(config, names), module, adapter_name=_NAME)
    else:
        for values in meta["settings"].get("inserts", ()) if meta["kind"] == OWN else [meta["settings"]]:
            insertion.insert_(module, Insert.from_json(values))
    own = module.state_dict()
    unknown = [name for name in tensors if name not in own or own[name].shape != tensors[name].shape]
    untouched = [name for name in own if is_adapter(name) and name not in before and name not in tensors]
    if unknown or untouched:
        raise DataError(f"the adapters are of another model: {(unknown or untouched)[0]!r} does not fit")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def fold_(module: nn.Module) -> nn.Module:
    """Fold the adapters of `module` that can be into the weights beside them, in float32, and take them out."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            owner, _, child = name.rpartition(".")
            setattr(module.get_submodule(owner), child, layer.get_base_layer())
    return module


def _peft_config(config: LoraConfig | Ia3Config, names: tuple[str, ...]) -> peft.PeftConfig:
    exactly = "|".join(name.replace(".", r"\.") for name in names)
    if isinstance(config, Ia3Config):
        return peft.IA3Config(target_modules=exactly, feedforward_modules=[])
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type] # peft divides it: any number will do
        lora_dropout=getattr(config, "adapter_dropout", 0.0),
        target_modules=exactly,
        use_dora=config.dora,
        use_rslora=config.rslora,
    )

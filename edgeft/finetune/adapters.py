"""Adapters by peft, beside a model's own layers: put in, written alone, and folded into the weights.

    lora    y = W x + b + (alpha / r) B A x                      (Hu et al. 2021), DoRA and rsLoRA as options
    ia3     y = (l * W) x + l * b                                (Liu et al. 2022), one factor l for each output

The folder of an adapted model holds what was trained (`adapter.safetensors`: adapters and head) and what is needed to
put it back (`adapter.json`); the base stays where it is. `merge` folds them in float32 before anything is quantized.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

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
from edgeft.models.architectures import classifier_prefix

WEIGHTS, META = "adapter.safetensors", "adapter.json"
AUTO: Final = "auto"
_NAME = "default"
_SCHEMA = 1


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
    return any(part in name for part in (".lora_", ".ia3_"))


def base_digest(module: nn.Module) -> str:
    """Return the sha256 of all weights of a plain `module` but the head's: what adapters were trained beside."""
    head, digest = head_prefix(module), hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not name.startswith(head):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write(
    folder: Path, trained: Mapping[str, Tensor], config: LoraConfig | Ia3Config, layers: tuple[str, ...], base: str
) -> None:
    """Write what was trained, and how to put it back; equal weights give equal bytes.

    Args:
        folder: where to.
        trained: tensors by name: adapters and head.
        config: what the adapters are.
        layers: beside which they stand.
        base: `base_digest` of what they were trained beside.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in trained.items()}
    write_atomic(folder / WEIGHTS, to_bytes(tensors))
    kept = {"rank", "alpha", "dora", "rslora", "targets"}
    settings = config.model_dump(mode="json", include=kept)
    meta = {
        "schema": _SCHEMA,
        "kind": "ia3" if isinstance(config, Ia3Config) else "lora",
        "settings": settings,
        "layers": list(layers),
        "base": base,
    }
    write_atomic(folder / META, json.dumps(meta, indent=2) + "\n")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what `write` wrote: the description and the tensors.

    Raises:
        DataError: a file is missing or damaged.
    """
    try:
        meta = json.loads((folder / META).read_bytes())
        known = meta["schema"] == _SCHEMA and meta["kind"] in {"lora", "ia3"} and len(meta["base"]) > 0
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
    config = (Ia3Config if meta["kind"] == "ia3" else LoraConfig).model_construct(**meta["settings"])
    peft.inject_adapter_in_model(_peft_config(config, names), module, adapter_name=_NAME)
    own = dict(module.named_parameters())
    unknown = [name for name in tensors if name not in own or own[name].shape != tensors[name].shape]
    untouched = [name for name in own if is_adapter(name) and name not in tensors]
    if unknown or untouched:
        raise DataError(f"the adapters are of another model: {(unknown or untouched)[0]!r} does not fit")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def fold_(module: nn.Module) -> nn.Module:
    """Fold all adapters of `module` into the weights that they stand beside, in float32, and take them out."""
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

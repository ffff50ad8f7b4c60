"""Where modules can be put into a model, and putting them there; what they are, see `inserts`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from edgeft.core.errors import DataError, UsageError
from edgeft.models.inserts import PLACE, Adapter, Insert, Kind, Prefix, Prompt, of
from edgeft.models.probing import at_rest

_TOKEN_DIMS, _IMAGE_DIMS = 3, 4
_TEXT_SITES = ("attention.output.dense", "output.dense", "attention.out_lin", "ffn.lin2")
"""Ends of the names of the linear layers that close attention and feed-forward, in transformers' encoders."""


def plan(module: nn.Module, kind: Kind, size: int, targets: Sequence[str] = ("auto",)) -> Insert:
    """Return what would be put into `module`.

    Args:
        module: a classifier of images or texts.
        kind: what to put in.
        size: see `Insert`.
        targets: of adapters: ends of the names of the modules that they stand behind; "auto" chooses.

    Raises:
        UsageError: the model has no place for it, or has one already.
    """
    if any(each.kind == kind for each in of(module)):
        raise UsageError(f"finetune.method: the model has {kind} modules already", hint="start from the plain model")
    sites = {"adapter": _adapter_sites, "prompt": _prompt_site, "prefix": _prefix_sites}[kind](module, tuple(targets))
    return Insert(kind, size, sites)


def insert_(module: nn.Module, insert: Insert, seed: int = 0) -> None:
    """Put new modules into `module`, on its device.

    Args:
        module: a classifier.
        insert: what, and where.
        seed: of what is random in them.

    Raises:
        DataError: `insert` was planned for another model.
    """
    known = dict(module.named_modules())
    missing = [name for name in insert.sites if name not in known]
    if missing:
        raise DataError(f"{insert.kind}: belongs to another model, this one has no {missing[0]!r}")
    device = next(module.parameters()).device
    object.__setattr__(module, "inserts", (*of(module), insert))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, shape in insert.sites.items():
            _PUT[insert.kind](module, known[name], insert.size, shape)
            getattr(known[name], PLACE).to(device)


def _put_adapter(_: nn.Module, site: nn.Module, size: int, shape: tuple[int, ...]) -> None:
    channels, dims = shape
    site.add_module(PLACE, Adapter(channels, size, images=dims == _IMAGE_DIMS))
    site.register_forward_hook(lambda owner, _, output: getattr(owner, PLACE)(output))


def _put_prompt(module: nn.Module, site: nn.Module, size: int, shape: tuple[int, ...]) -> None:
    prompt = Prompt(size, *shape)
    if isinstance(module, VisionTransformer):
        site.register_forward_hook(lambda owner, _, states: getattr(owner, PLACE).behind(states))
        module.norm.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, :-size],))
    else:  # the embeddings of a text encoder look for theirs, and it begins as words do
        with torch.no_grad():
            table = next(part for part in site.children() if isinstance(part, nn.Embedding))
            ids = torch.randint(table.num_embeddings, (size, 1)).to(table.weight.device)  # drawn alike everywhere
            prompt.vectors.copy_(site(input_ids=ids)[:, 0])
    site.add_module(PLACE, prompt)


def _put_prefix(module: nn.Module, site: nn.Module, size: int, shape: tuple[int, ...]) -> None:
    from edgeft.models import text  # brings transformers, which image models do without

    if not isinstance(module, text.TextClassifier):
        raise DataError(f"prefix: belongs to a text classifier, this is a {type(module).__name__}")
    site.add_module(PLACE, Prefix(size, *shape))
    text.set_attention_(module, "sdpa")


_PUT: Final[Mapping[str, Callable[[nn.Module, nn.Module, int, tuple[int, ...]], None]]] = {
    "adapter": _put_adapter,
    "prompt": _put_prompt,
    "prefix": _put_prefix,
}


def _adapter_sites(module: nn.Module, targets: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    texts = hasattr(module, "pooling")
    if targets != ("auto",):
        names = [name for name, _ in module.named_modules() if name.endswith(targets)]
    elif texts:
        names = [name for name, layer in module.named_modules() if name.endswith(_TEXT_SITES)]
    else:
        names = _blocks(module)
    if not names:
        asked = "blocks" if targets == ("auto",) else f"module that ends in {' or '.join(targets)}"
        raise UsageError(
            f"finetune.targets: no {asked} found to put an adapter behind",
            hint="name some: ends of the names of modules, e.g. finetune.targets: [mlp]",
        )
    if texts:
        found: dict[str, tuple[int, ...]] = {}
        for name in names:
            layer = module.get_submodule(name)
            if not isinstance(layer, nn.Linear):
                raise UsageError(f"finetune.targets: {name} is no linear layer")
            found[name] = (layer.out_features, _TOKEN_DIMS)
        return found
    return _shapes(module, names)


def _blocks(module: nn.Module) -> list[str]:
    """Return the topmost modules with parts that stand in a chain (a Sequential or a list), in order."""
    found: list[str] = []
    for name, part in module.named_modules():
        owner = module.get_submodule(name.rpartition(".")[0])
        inside = any(name.startswith(f"{above}.") for above in found)
        chained = isinstance(owner, nn.Sequential | nn.ModuleList) and owner is not module
        if chained and not inside and not isinstance(part, nn.Sequential) and any(part.children()):
            found.append(name)
    return found


def _shapes(module: nn.Module, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return channels and dimensions of what each module puts out for an image."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, value: object) -> None:
        if not isinstance(value, Tensor) or value.ndim not in {_TOKEN_DIMS, _IMAGE_DIMS}:
            raise UsageError(f"finetune.targets: {name} puts out no feature map and no tokens")
        found[name] = (int(value.shape[1 if value.ndim == _IMAGE_DIMS else -1]), value.ndim)

    hooks = [
        module.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name in names
    ]
    config = getattr(module, "pretrained_cfg", None) or {}
    try:
        with at_rest(module):
            parameter = next(module.parameters())
            module(torch.zeros(1, *config.get("input_size", (3, 224, 224)), device=parameter.device))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: found[name] for name in names}


def _prompt_site(module: nn.Module, _: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    if isinstance(module, VisionTransformer):
        return {"norm_pre": (int(module.embed_dim),)}
    from edgeft.models import text  # brings transformers, which other image models do without

    if isinstance(module, text.TextClassifier) and module.groups()[0][0] == "embeddings":
        return {"encoder.embeddings": (text.width(module.encoder),)}
    raise UsageError(
        f"finetune.method: prompt has no place in {type(module).__name__}",
        hint="it works on text encoders that are a chain of layers, and on timm's vision transformers; "
        "try adapter or lora",
    )


def _prefix_sites(module: nn.Module, _: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    from edgeft.models import text  # brings transformers, which other image models do without

    sites = text.attentions(module) if isinstance(module, text.TextClassifier) else {}
    if sites:
        return sites
    raise UsageError(
        f"finetune.method: prefix has no place in {type(module).__name__}",
        hint="it works on transformers' text encoders; try adapter or lora",
    )

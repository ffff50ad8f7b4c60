"""Adapters of several sites, averaged into one model: what is shared are adapters, the data stay where they are.

All are trained from one base. With p_i the share of samples of site i and W_i its merged weights,

    W = sum_i p_i W_i        (federated averaging, McMahan et al. 2017)

Merged weights are averaged, not the factors A and B of LoRA: the mean of products is what the sites learnt, the product
of means is not.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeft.core.errors import DataError, UsageError
from edgeft.core.stage import Json
from edgeft.finetune import adapters
from edgeft.finetune.merge import logits_of, merge_
from edgeft.models import inserts
from edgeft.models.checkpoint import CheckpointMeta, read_meta, save
from edgeft.models.config import ModelConfig, TextOptions
from edgeft.models.sources import create_with_notes
from edgeft.models.text_source import CONFIG, TOKENIZER, read_config
from edgeft.runtime.text import IDS, MASK, TextContract

_PROBE_ROWS, _PROBE_LENGTH = 4, 12
_ENCODER_FILES = (CONFIG, TOKENIZER)


def merge_folders(
    base: Path | None, folders: Sequence[Path], out: Path, shares: Sequence[float] = (), threads: int = 1
) -> dict[str, Json]:
    """Merge each folder's adapters into the base, and write the average as a checkpoint folder.

    Args:
        base: the file or folder of the weights that all were trained beside; None where these were random.
        folders: of adapters, as the finetune stage writes them.
        out: the folder to write, new or empty; of a text model it holds the base's tokenizer, too.
        shares: weight of each; () takes the samples that each was trained on.
        threads: CPU threads.

    Returns:
        What each was, what the check found, and its share.

    Raises:
        UsageError: there are no adapters, shares do not fit, or `out` holds something.
        DataError: adapters are damaged, of another base, or do not fit each other.
        EdgeftError: merging changed what the model computes, or nothing at all.
    """
    if not folders or (shares and (len(shares) != len(folders) or min(shares) <= 0)):
        raise UsageError(f"{len(folders)} adapters and {len(shares)} weights: each adapter needs one above 0")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: is there already", hint="name a new folder: --out DIR")
    told: list[Json] = []
    total: dict[str, Tensor] = {}
    samples = [float(adapters.read(folder)[0]["samples"]) for folder in folders]
    weights, first = [float(each) for each in shares] or samples, read_meta(folders[0])
    for folder, weight in zip(folders, weights, strict=True):
        _require_alike(folder, first, folders[0])
        module = _base(base, first)
        measured = merge_(module, folder, lambda module: logits_of(module, _probe(first), threads), str(base))
        kept = tuple(insert.to_json() for insert in inserts.of(module))
        share = weight / sum(weights)
        told.append({"adapter": str(folder), "share": share, "kept": list(kept), **measured})
        _add_(total, module.state_dict(), share, folder)
    with torch.no_grad():
        own = module.state_dict()
        for name, tensor in total.items():
            own[name].copy_(tensor)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as beside:
        whole = Path(beside) / out.name
        whole.mkdir()
        for name in _ENCODER_FILES:
            if first.encoder is not None and base is not None and (base / name).is_file():
                shutil.copyfile(base / name, whole / name)
        save(whole, module, replace(first, inserts=inserts.of(module)))
        whole.rename(out)  # over an empty folder, too
    return {"architecture": first.architecture, "classes": list(first.classes), "adapters": told, "out": str(out)}


def _base(weights: Path | None, plain: CheckpointMeta) -> nn.Module:
    if weights is not None and plain.encoder is not None and (weights / CONFIG).is_file():
        whole, own = read_config(weights).get("vocab_size"), plain.encoder["vocab_size"]
        if whole != own:
            raise DataError(
                f"the adapters were trained with {own:,} tokens, {weights} has {whole:,}",
                hint="sites share a whole vocabulary: train with model.text.vocabulary: all",
            )
    text = TextOptions(pooling=plain.pooling) if plain.encoder is not None else TextOptions()
    config = ModelConfig(
        base=plain.architecture, weights=None if weights is None else str(weights), dropout=plain.dropout, text=text
    )
    return create_with_notes(config, weights, plain.classes, 0).module.eval()


def _require_alike(folder: Path, first: CheckpointMeta, other: Path) -> None:
    meta = read_meta(folder)
    for what in ("architecture", "classes", "input"):
        if getattr(meta, what) != getattr(first, what):
            raise DataError(
                f"{folder}: its {what} is {getattr(meta, what)}, that of {other} is {getattr(first, what)}",
                hint="average adapters of one recipe, trained at different places",
            )


def _add_(total: dict[str, Tensor], state: Mapping[str, Tensor], share: float, folder: Path) -> None:
    if total and {name: tensor.shape for name, tensor in total.items()} != {n: t.shape for n, t in state.items()}:
        raise DataError(f"{folder}: its adapters have other places or sizes than the ones before")
    for name, tensor in state.items():
        part = tensor.double() * share if tensor.is_floating_point() else tensor
        total[name] = total[name] + part if name in total and tensor.is_floating_point() else part


def _probe(plain: CheckpointMeta) -> Any:  # noqa: ANN401 - what the module takes
    """Return inputs on which two states of one model can be compared: seeded tokens or pixels, no data."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(plain.input, TextContract) or plain.encoder is not None:
        known = int((plain.encoder or {})["vocab_size"])
        ids = torch.randint(known // 2, known, (_PROBE_ROWS, _PROBE_LENGTH), generator=generator)
        return {IDS: ids, MASK: torch.ones_like(ids)}
    return torch.randn(_PROBE_ROWS, 3, plain.input.height, plain.input.width, generator=generator)

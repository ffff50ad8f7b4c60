"""Adapters: put in without a change, trained alone, folded into the weights; as peft itself does it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edgeft import catalog
from edgeft.core.errors import DataError, EdgeftError, UsageError
from edgeft.core.stage import Context, Json, StageResult
from edgeft.data.dataset import Dataset
from edgeft.finetune import adapters, merge
from edgeft.finetune.config import Ia3Config, LoraConfig, MergeConfig
from edgeft.models.checkpoint import load
from edgeft.models.predict import logits
from edgeft.models.sources import create
from edgeft.testing import method_cases
from edgeft.testing.toys import PATCHES, Images, Texts

TOYS = [Images(), Texts()]
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"dora": True},
    "rslora": {"rslora": True, "rank": 4},
}


def model(toy: Images | Texts, folder: Path) -> nn.Module:
    config, inputs = toy.model(folder)
    return create(config, inputs.get("weights"), ("a", "b", "c"), 0).eval()


def outputs(toy: Images | Texts, module: nn.Module) -> torch.Tensor:
    if isinstance(toy, Images):
        inputs: Any = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    else:
        ids = torch.randint(4, 17, (4, 9), generator=torch.Generator().manual_seed(1))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        found: torch.Tensor = module(inputs)
    return found


def config_of(kind: type[LoraConfig | Ia3Config], toy: Images | Texts, folder: Path, **values: Any) -> Any:  # noqa: ANN401 - a config
    return kind(model=toy.model(folder)[0], **values)


@pytest.mark.parametrize("variant", [*VARIANTS, "ia3"])
@pytest.mark.parametrize("toy", TOYS, ids=["images", "texts"])
def test_adapters_change_nothing_at_birth_and_fold_exactly(toy: Images | Texts, variant: str, tmp_path: Path) -> None:
    module = model(toy, tmp_path)
    before = outputs(toy, module)
    kind = Ia3Config if variant == "ia3" else LoraConfig
    names = adapters.inject_(module, config_of(kind, toy, tmp_path, **VARIANTS.get(variant, {})), 3)
    module.eval()
    assert len(names) > 3
    torch.testing.assert_close(outputs(toy, module), before, atol=1e-5, rtol=1e-5)
    for name, parameter in module.named_parameters():
        if adapters.is_adapter(name):
            with torch.no_grad():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    unmerged = outputs(toy, module)
    assert (unmerged - before).abs().max() > 1e-3
    plain = adapters.fold_(module)
    torch.testing.assert_close(outputs(toy, plain), unmerged, atol=1e-4, rtol=1e-4)
    assert not any(adapters.is_adapter(name) for name, _ in plain.named_parameters())
    fresh = model(toy, tmp_path)
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in fresh.named_parameters()]


def test_it_is_pefts_own_lora(tmp_path: Path) -> None:
    toy = Texts()
    ours, theirs = model(toy, tmp_path), model(toy, tmp_path)
    adapters.inject_(ours, config_of(LoraConfig, toy, tmp_path, targets=("query", "value"), rank=4, alpha=8), 5)
    torch.manual_seed(5)
    wrapped = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"]))
    own = {name: value for name, value in ours.named_parameters() if adapters.is_adapter(name)}
    named = ((name.removeprefix("base_model.model."), value) for name, value in wrapped.named_parameters())
    peers = {name: value for name, value in named if "lora_" in name}
    assert set(own) == set(peers)
    for name, value in own.items():
        torch.testing.assert_close(value, peers[name])
        with torch.no_grad():
            value.add_(0.1)
            peers[name].add_(0.1)
    torch.testing.assert_close(outputs(toy, ours.eval()), outputs(toy, wrapped.eval()))
    torch.testing.assert_close(outputs(toy, adapters.fold_(ours)), outputs(toy, wrapped.merge_and_unload()))


def test_targets_are_ends_of_names_and_never_the_head(tmp_path: Path) -> None:
    module = model(Texts(), tmp_path)
    assert all(name.endswith(("query", "value")) for name in adapters.target_layers(module, ("query", "value")))
    assert not any("classifier" in name for name in adapters.target_layers(module, ("auto",)))
    with pytest.raises(UsageError, match="no linear layer or convolution ends in qury") as caught:
        adapters.target_layers(module, ("qury",))
    assert caught.value.hint is not None
    assert "attention.self.query" in caught.value.hint
    images = model(Images(), tmp_path)
    grouped = [name for name, layer in images.named_modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]
    assert not set(grouped) & set(adapters.target_layers(images, ("auto",)))


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, Path, StageResult]:
    toy = Texts()
    data = toy.write(tmp_path / "data")
    method = catalog.find("finetune", "lora")
    return tmp_path, data, method_cases.run(method, toy, tmp_path, data, {"epochs": 3, "lr": 1e-2})


def merged(folder: Path, data: Path, result: Path, out: str = "merged", **given: Path) -> Path:
    config, inputs = Texts().model(folder)
    (folder / out).mkdir()
    context = Context(folder / out, folder, seed=0, threads=1)
    return merge.run(context, {"data": data, "finetune": result, **inputs, **given}, MergeConfig(model=config)).folder


def test_a_merged_checkpoint_is_what_was_trained(trained: tuple[Path, Path, StageResult]) -> None:
    folder, data, result = trained
    checkpoint = merged(folder, data, result.folder)
    dataset = Dataset.open(data)
    val = dataset.indices("val")
    decided = logits(checkpoint, dataset.part(val), 1).argmax(axis=1)
    assert float(np.mean(decided == dataset.labels[val])) == pytest.approx(result.measurements["val_accuracy"])
    kept = load_file(result.folder / "adapter.safetensors")
    assert sum(tensor.numel() for tensor in kept.values()) == result.measurements["trainable_parameters"]
    assert (result.folder / "adapter.safetensors").stat().st_size < (checkpoint / "model.safetensors").stat().st_size


def test_another_base_is_refused(trained: tuple[Path, Path, StageResult]) -> None:
    folder, data, result = trained
    encoder = folder / "encoder" / "model.safetensors"
    tensors = load_file(encoder)
    name = next(name for name in tensors if name.endswith("query.weight"))
    save_file({**tensors, name: tensors[name] + 0.01}, encoder, metadata={"format": "pt"})
    with pytest.raises(DataError, match="trained beside other weights"):
        merged(folder, data, result.folder)


def test_a_merge_that_changes_nothing_is_an_error(trained: tuple[Path, Path, StageResult]) -> None:
    folder, data, result = trained
    tensors = load_file(result.folder / "adapter.safetensors")
    zero = {name: value * (0 if "lora_B" in name else 1) for name, value in tensors.items()}
    save_file(zero, result.folder / "adapter.safetensors")
    with pytest.raises(EdgeftError, match="what was trained changes nothing"):
        merged(folder, data, result.folder)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda _, tensors: (None, tensors), "not a folder of adapters"),
        (lambda meta, tensors: ({**meta, "kind": "x"}, tensors), "kind 'x' are not known"),
        (lambda meta, tensors: ({**meta, "layers": ["gone"]}, tensors), "it has no layer 'gone'"),
        (lambda meta, tensors: (meta, dict(list(tensors.items())[:-3])), "does not fit"),
        (lambda meta, tensors: (meta, {**tensors, "classifier.bias": torch.zeros(7)}), "does not fit"),
    ],
)
def test_damaged_adapters_are_named(
    trained: tuple[Path, Path, StageResult],
    damage: Any,  # noqa: ANN401 - a case
    why: str,
) -> None:
    folder, data, result = trained
    meta = json.loads((result.folder / "adapter.json").read_text())
    changed, tensors = damage(meta, load_file(result.folder / "adapter.safetensors"))
    (result.folder / "adapter.json").write_text("{" if changed is None else json.dumps(changed))
    save_file(tensors, result.folder / "adapter.safetensors")
    with pytest.raises(DataError, match=why):
        merged(folder, data, result.folder)


@pytest.mark.parametrize("name", ["lora", "adapter"])
def test_a_network_that_is_no_chain_trains_its_adapters(name: str, tmp_path: Path) -> None:
    """A vision transformer is a trunk and a head: its groups are taken anew when adapters stand in it."""
    data = PATCHES.write(tmp_path / "data")
    method = catalog.find("finetune", name)
    result = method_cases.run(method, PATCHES, tmp_path, data, {"epochs": 2, "lr": 1e-2})
    kept = load_file(result.folder / "adapter.safetensors")
    moving = [key for key in kept if key.endswith(("lora_B.default.weight", "up.weight"))]
    assert len(moving) >= 6
    assert all(bool(kept[key].any()) for key in moving)  # they begin at 0
    assert (method_cases.plain(method, PATCHES, tmp_path, data, result) / "model.safetensors").is_file()


@pytest.mark.parametrize("last", ["adapter", "prefix", "lora"])
def test_a_sequence_of_methods_leaves_what_the_last_model_has_beside_the_base(last: str, tmp_path: Path) -> None:
    toy, method = Texts(), catalog.find("finetune", "hybrid")
    rows = toy.write(tmp_path / "data")
    settings: dict[str, Json] = {"steps": [{"method": "bitfit"}, {"method": last}], "epochs": 1, "lr": 0.01}
    result = method_cases.run(method, toy, tmp_path, rows, settings)
    assert {path.name for path in result.folder.iterdir()} == {
        "adapter.json", "adapter.safetensors", "history.json", "model.json",
    }  # fmt: skip
    stored = load_file(result.folder / "adapter.safetensors")
    merged, meta = load(method_cases.plain(method, toy, tmp_path, rows, result))
    expected, told = load(tmp_path / "workspace" / "step-2" / "checkpoint")
    assert meta == told
    assert merged.state_dict().keys() == expected.state_dict().keys()
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in merged.state_dict().items())
    base = {name for name in expected.state_dict() if name not in stored}
    assert "encoder.embeddings.word_embeddings.weight" in base  # nothing of it moved, so it is not stored

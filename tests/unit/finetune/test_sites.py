"""Adapters of several sites: the average is that of the merged weights, and only what fits is averaged."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from edgeft import catalog
from edgeft.core.errors import DataError, UsageError
from edgeft.core.stage import Json, Method
from edgeft.finetune.sites import merge_folders
from edgeft.models.checkpoint import load, read_meta
from edgeft.models.config import ModelConfig
from edgeft.testing import method_cases
from edgeft.testing.toys import TEXTS, Images, Toy

WEIGHTS = "model.safetensors"


def method(name: str) -> Method:
    return next(each for each in catalog.methods("finetune") if each.name == name)


@dataclass(frozen=True)
class Sites:
    """Two sites that trained the same adapters with other seeds, and their base."""

    toy: Toy
    kind: Method
    folders: tuple[Path, Path]
    merged: tuple[Path, Path]
    base: Path | None


def trained(toy: Toy, name: str, folder: Path, **settings: Json) -> Sites:
    kind, folders, merged = method(name), [], []
    for seed in (0, 1):
        place = folder / f"site-{seed}"
        data = toy.write(place / "data")
        result = method_cases.run(
            kind, toy, place, data, {"epochs": 2, "lr": 1e-2, "augment": (), **settings}, seed=seed
        )
        folders.append(result.folder)
        merged.append(method_cases.plain(kind, toy, place, data, result))
    base = toy.model(folder / "site-0")[1].get("weights")
    return Sites(toy, kind, (folders[0], folders[1]), (merged[0], merged[1]), base)


@pytest.fixture(scope="module", params=["frozen", "bitfit", "lora", "ia3", "adapter", "prompt", "prefix"])
def texts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sites:
    return trained(TEXTS, request.param, tmp_path_factory.mktemp(request.param))


def test_one_site_gives_what_the_merge_stage_gives(texts: Sites, tmp_path: Path) -> None:
    merge_folders(texts.base, texts.folders[:1], tmp_path / "out")
    found, expected = load_file(tmp_path / "out" / WEIGHTS), load_file(texts.merged[0] / WEIGHTS)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-6)


def test_the_average_is_that_of_merged_weights_by_samples(texts: Sites, tmp_path: Path) -> None:
    (texts.folders[1] / "adapter.json").write_text(
        json.dumps({**json.loads((texts.folders[1] / "adapter.json").read_text()), "samples": 12})
    )
    told = merge_folders(texts.base, texts.folders, tmp_path / "out")
    assert [each["share"] for each in told["adapters"]] == pytest.approx([0.75, 0.25])  # type: ignore[index, union-attr, call-overload] # JSON
    one, other = (load_file(folder / WEIGHTS) for folder in texts.merged)
    for name, tensor in load_file(tmp_path / "out" / WEIGHTS).items():
        torch.testing.assert_close(tensor, 0.75 * one[name] + 0.25 * other[name], atol=1e-6, rtol=1e-5)
    loaded, meta = load(tmp_path / "out")
    assert meta == read_meta(texts.merged[0])
    assert not loaded.training
    assert (tmp_path / "out" / "config.json").is_file()


def test_weights_may_be_given(texts: Sites, tmp_path: Path) -> None:
    told = merge_folders(texts.base, texts.folders, tmp_path / "out", shares=(1, 1))
    assert [each["share"] for each in told["adapters"]] == [0.5, 0.5]  # type: ignore[index, union-attr, call-overload] # JSON


@dataclass(frozen=True, slots=True)
class Pretrained(Images):
    """The toy's network with weights from a file."""

    def model(self, folder: Path) -> tuple[ModelConfig, dict[str, Path]]:
        path = folder / "weights.safetensors"
        if not path.is_file():
            torch.manual_seed(1)
            path.write_bytes(to_bytes(timm.create_model("test_resnet").state_dict()))
        config, _ = Images.model(self, folder)
        return config.model_copy(update={"weights": str(path)}), {"weights": path}


@pytest.mark.parametrize("name", ["lora", "adapter"])
def test_images_are_averaged(name: str, tmp_path: Path) -> None:
    sites = trained(Pretrained(), name, tmp_path)
    merge_folders(sites.base, sites.folders, tmp_path / "out")
    one, other = (load_file(folder / WEIGHTS) for folder in sites.merged)
    for key, tensor in load_file(tmp_path / "out" / WEIGHTS).items():
        expected = (one[key] + other[key]) / 2 if tensor.is_floating_point() else one[key]
        torch.testing.assert_close(tensor, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(DataError, match="trained beside other weights than None"):
        merge_folders(None, sites.folders, tmp_path / "other")


def test_refusals(tmp_path: Path) -> None:
    sites, out = trained(TEXTS, "lora", tmp_path / "a"), tmp_path / "out"
    with pytest.raises(UsageError, match="0 adapters"):
        merge_folders(sites.base, (), out)
    with pytest.raises(UsageError, match="2 adapters and 1 weights"):
        merge_folders(sites.base, sites.folders, out, shares=(1,))
    with pytest.raises(UsageError, match="2 adapters and 2 weights: each adapter needs one above 0"):
        merge_folders(sites.base, sites.folders, out, shares=(1, 0))
    with pytest.raises(DataError, match="not a folder of adapters"):
        merge_folders(sites.base, (tmp_path / "a",), out)
    wider = trained(TEXTS, "lora", tmp_path / "b", targets=["query"])
    merge_folders(sites.base, (sites.folders[0], wider.folders[0]), tmp_path / "folded")  # ranks and places may differ
    prompts = trained(TEXTS, "prompt", tmp_path / "c")
    with pytest.raises(DataError, match="other places or sizes"):
        merge_folders(sites.base, (sites.folders[0], prompts.folders[0]), out)
    values = json.loads((sites.folders[1] / "model.json").read_text())
    (sites.folders[1] / "model.json").write_text(json.dumps({**values, "classes": ["red", "green", "blue"]}))
    with pytest.raises(DataError, match=r"its classes is \('red', 'green', 'blue'\)"):
        merge_folders(sites.base, sites.folders, out)
    assert not out.exists()
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(UsageError, match="is there already"):
        merge_folders(sites.base, sites.folders[:1], out)


def test_a_trimmed_vocabulary_is_refused(texts: Sites, tmp_path: Path) -> None:
    copy = tmp_path / "adapter"
    shutil.copytree(texts.folders[0], copy)
    meta = json.loads((copy / "model.json").read_text())
    meta["encoder"]["vocab_size"] = 7
    (copy / "model.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match=r"trained with 7 tokens, .* has 17") as caught:
        merge_folders(texts.base, [copy], tmp_path / "out")
    assert "model.text.vocabulary: all" in str(caught.value.hint)

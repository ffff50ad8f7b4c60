"""Foreign weights: by name, in order, and what is said when they do not fit."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgeft.core.errors import DataError, UsageError
from edgeft.models.config import ModelConfig
from edgeft.models.sources import create, create_with_notes

CONFIG = ModelConfig(base="timm/test_resnet", weights="file.pth")
CLASSES = ("bad", "good")


@pytest.fixture(scope="module")
def original() -> dict[str, Tensor]:
    torch_module = create(ModelConfig(base="timm/test_resnet"), None, [str(i) for i in range(1000)], seed=7)
    state = torch_module.state_dict()
    return {
        name: torch.randn_like(tensor) if tensor.is_floating_point() else tensor + 3 for name, tensor in state.items()
    }


def save(path: Path, tensors: object) -> Path:
    torch.save(tensors, path)
    return path


def trunk_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    names = [name for name in expected if not name.startswith("fc.")]
    return all(torch.equal(found[name], expected[name]) for name in names)


@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: {"state_dict": t}, lambda t: {f"module.{k}": v for k, v in t.items()}]
)
def test_weights_are_mapped_by_name(tmp_path: Path, original: dict[str, Tensor], wrap: object) -> None:
    assert callable(wrap)
    made = create_with_notes(CONFIG, save(tmp_path / "w.pth", wrap(original)), CLASSES, seed=0)
    assert trunk_equal(made.module.state_dict(), original)
    assert "mapped by name" in made.notes[0]
    assert "w.pth" in made.notes[0]


def test_other_names_with_the_same_shapes_are_mapped_in_order(tmp_path: Path, original: dict[str, Tensor]) -> None:
    renamed = OrderedDict((f"layer_{i}", tensor) for i, tensor in enumerate(original.values()))
    made = create_with_notes(CONFIG, save(tmp_path / "w.pth", renamed), CLASSES, seed=0)
    assert trunk_equal(made.module.state_dict(), original)
    assert "mapped in order" in made.notes[0]


def test_safetensors_are_read(tmp_path: Path, original: dict[str, Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in original.items()}, tmp_path / "w.safetensors")
    made = create(CONFIG, tmp_path / "w.safetensors", CLASSES, seed=0)
    assert trunk_equal(made.state_dict(), original)


@pytest.mark.parametrize("rename", [False, True])
def test_wrong_shape_names_the_tensor_and_both_shapes(
    tmp_path: Path, original: dict[str, Tensor], *, rename: bool
) -> None:
    name = "layer1.0.conv2.weight"
    wrong = {**original, name: original[name][:, 1:]}
    stored = {f"_{key}": value for key, value in wrong.items()} if rename else wrong
    with pytest.raises(DataError, match=r"layer1\.0\.conv2\.weight") as caught:
        create(CONFIG, save(tmp_path / "w.pth", stored), CLASSES, seed=0)
    assert str(tuple(original[name].shape)) in caught.value.message
    assert str(tuple(wrong[name].shape)) in caught.value.message
    assert "w.pth" in caught.value.message


def test_a_missing_tensor_is_named(tmp_path: Path, original: dict[str, Tensor]) -> None:
    short = {name: tensor for name, tensor in original.items() if name != "layer2.0.bn1.weight"}
    with pytest.raises(DataError, match=r"layer2\.0\.bn1\.weight"):
        create(CONFIG, save(tmp_path / "w.pth", short), CLASSES, seed=0)


def test_weights_without_classifier_are_enough(tmp_path: Path, original: dict[str, Tensor]) -> None:
    trunk = {name: tensor for name, tensor in original.items() if not name.startswith("fc.")}
    made = create_with_notes(CONFIG, save(tmp_path / "w.pth", trunk), CLASSES, seed=0)
    assert trunk_equal(made.module.state_dict(), original)
    assert "fc.weight" in made.notes[0]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"damaged{suffix}"):
        create(CONFIG, path, CLASSES, seed=0)


def test_code_in_a_pickle_never_runs(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "exploded"),))  # type: ignore[return-value] # any callable would do

    with pytest.raises(DataError, match=r"bomb\.pth"):
        create(CONFIG, save(tmp_path / "bomb.pth", {"weight": Bomb()}), CLASSES, seed=0)
    assert not (tmp_path / "exploded").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.pth"):
        create(CONFIG, tmp_path / "nowhere.pth", CLASSES, seed=0)


def test_an_unresolved_weights_key_is_refused() -> None:
    with pytest.raises(UsageError, match=r"file\.pth"):
        create(CONFIG, None, CLASSES, seed=0)


def test_no_weights_is_said_and_seeded() -> None:
    config = ModelConfig(base="timm/test_resnet")
    first, second, other = (create_with_notes(config, None, CLASSES, seed=seed) for seed in (1, 1, 2))
    assert "random" in first.notes[0]
    name = "conv1.0.weight" if "conv1.0.weight" in first.module.state_dict() else "conv1.weight"
    assert torch.equal(first.module.state_dict()[name], second.module.state_dict()[name])
    assert not torch.equal(first.module.state_dict()[name], other.module.state_dict()[name])


def test_torchvision_weights_fit_with_and_without_dropout(tmp_path: Path) -> None:
    source = create(ModelConfig(base="torchvision/resnet18"), None, [str(i) for i in range(1000)], seed=3)
    path = save(tmp_path / "resnet18.pth", source.state_dict())
    for dropout in (0.0, 0.5):
        config = ModelConfig(base="torchvision/resnet18", weights="resnet18.pth", dropout=dropout)
        made = create_with_notes(config, path, CLASSES, seed=0)
        assert trunk_equal(made.module.state_dict(), source.state_dict())
        assert "mapped by name" in made.notes[0]

"""A checkpoint as it is: the same weights come out, for the same classes only."""

from pathlib import Path

import pytest
import torch

from edgeft import catalog
from edgeft.core.errors import DataError, UsageError
from edgeft.models.checkpoint import load
from edgeft.models.config import ModelConfig
from edgeft.testing import method_cases
from edgeft.testing.toys import CONVOLUTIONS, TEXTS, Images, Texts

NONE, FULL = catalog.find("finetune", "none"), catalog.find("finetune", "full")


def from_checkpoint(toy: Images | Texts, folder: Path) -> Images | Texts:
    """The toy, whose model starts from the checkpoint in `folder`."""

    class Started(type(toy)):  # type: ignore[misc] # a toy's class
        def model(self, place: Path) -> tuple[ModelConfig, dict[str, Path]]:
            config, _ = toy.model(place)
            return config.model_copy(update={"weights": str(folder)}), {"weights": folder}

    return Started()  # type: ignore[no-any-return] # likewise


@pytest.mark.parametrize("toy", [CONVOLUTIONS, TEXTS], ids=["images", "texts"])
def test_what_was_trained_comes_out_and_may_be_trained_on(toy: Images | Texts, tmp_path: Path) -> None:
    data = toy.write(tmp_path / "data")
    trained = method_cases.run(FULL, toy, tmp_path / "full", data, {}).folder
    started = from_checkpoint(toy, trained)
    taken = method_cases.run(NONE, started, tmp_path / "none", data, {})
    assert taken.measurements["trainable_parameters"] == 0
    before, after = load(trained)[0].state_dict(), load(taken.folder)[0].state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    further = method_cases.run(FULL, started, tmp_path / "further", data, {"epochs": 1}).folder
    assert any(not torch.equal(load(further)[0].state_dict()[name], tensor) for name, tensor in before.items())


def test_other_classes_or_another_network_are_refused(tmp_path: Path) -> None:
    data = CONVOLUTIONS.write(tmp_path / "data")
    trained = method_cases.run(FULL, CONVOLUTIONS, tmp_path / "full", data, {}).folder
    other = Images(base="timm/test_efficientnet")
    with pytest.raises(UsageError, match=r"model\.base: timm/test_efficientnet, and .* holds timm/test_resnet"):
        method_cases.run(NONE, from_checkpoint(other, trained), tmp_path / "other", data, {})
    meta = trained / "model.json"
    meta.write_text(meta.read_text().replace('"red"', '"purple"'))
    with pytest.raises(DataError, match="its classes are blue, green, purple, the data's are blue, green, red"):
        method_cases.run(NONE, from_checkpoint(CONVOLUTIONS, trained), tmp_path / "classes", data, {})

"""The engine with toy methods in place of the rooms that train."""

from pathlib import Path

import pytest

from edgeft import catalog

TOYS = Path(__file__).parent / "pipeline" / "toys"


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOYS)
    monkeypatch.setattr(catalog, "METHODS", catalog.resolve("toy_room:METHODS"))
    monkeypatch.setattr(catalog, "exporters", lambda: {"onnx": "toy_room:ToyExporter"})
    monkeypatch.setattr(catalog, "_lowerings", tuple)


@pytest.fixture
def project(toys: None, tmp_path: Path) -> Path:  # noqa: ARG001 - it acts by being asked for
    folder = tmp_path / "My Parts"
    (folder / "images").mkdir(parents=True)
    for index in range(3):
        (folder / "images" / f"{index}.png").write_text(str(index))
    (folder / "recipe.yaml").write_text(
        "version: 1\n"
        "data:\n"
        "  source: images\n"
        "model:\n"
        "  base: timm/tf_efficientnet_lite0\n"
        "finetune:\n"
        "  epochs: 2\n"
        "  lr: 0.001\n"
    )
    return folder

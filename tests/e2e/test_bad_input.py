"""What a newcomer gets wrong: one message that names the thing, and an exit code that says whose fault it is."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import elpv_dataset
import pytest
import torch
from PIL import Image

CELLS = sorted((Path(elpv_dataset.__file__).parent / "data" / "images").glob("*.png"))

RECIPE = """\
version: 1
data: {source: images}
model: {base: torchvision/mobilenet_v3_small}
finetune: {method: frozen, epochs: 1}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Real cells in two class folders, enough for three splits, and a recipe for a small net without weights."""
    for number, cell in enumerate(CELLS[:40]):
        folder = tmp_path / "images" / ("good", "bad")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(cell) as image:
            image.resize((64, 64)).save(folder / cell.name)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def _edit(project: Path, old: str, new: str) -> None:
    recipe = project / "recipe.yaml"
    assert old in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(old, new))


def _missing_table(project: Path) -> None:
    _edit(project, "source: images", "source: labels.csv")


def _empty_folder(project: Path) -> None:
    shutil.rmtree(project / "images")
    (project / "images").mkdir()


def _one_class(project: Path) -> None:
    shutil.rmtree(project / "images" / "bad")


def _class_without_images(project: Path) -> None:
    (project / "images" / "scratched").mkdir()


def _table(project: Path, row: str = "") -> None:
    rows = [f"{path.relative_to(project)},{path.parent.name}" for path in sorted((project / "images").rglob("*.png"))]
    (project / "labels.csv").write_text("\n".join(["file,defect", *rows, row]).rstrip("\n") + "\n")


def _unknown_column(project: Path) -> None:
    _table(project)
    _edit(project, "source: images", "source: labels.csv, columns: {input: file, label: defct}")


def _row_without_image(project: Path) -> None:
    _table(project, "images/good/nowhere.png,good")
    _edit(project, "source: images", "source: labels.csv, columns: {input: file, label: defect}")


def _corrupt_test_image(project: Path) -> None:
    rows = [f"{path.relative_to(project)},{path.parent.name}" for path in sorted((project / "images").rglob("*.png"))]
    parts = ("train", "train", "train", "val", "test")
    lines = [f"{row},{parts[number % 5]}" for number, row in enumerate(rows)]
    (project / "labels.csv").write_text("\n".join(["file,defect,part", *lines]) + "\n")
    columns = "{input: file, label: defect, split: part}"
    _edit(project, "source: images", f"source: labels.csv, columns: {columns}")
    broken = project / rows[4].split(",")[0]
    broken.write_bytes(broken.read_bytes()[:200])
    broken.rename(broken.with_name("broken.png"))
    (project / "labels.csv").write_text((project / "labels.csv").read_text().replace(broken.name, "broken.png"))


def _empty_weights(project: Path) -> None:
    (project / "empty.pth").write_bytes(b"")
    _edit(project, "mobilenet_v3_small", "mobilenet_v3_small, weights: empty.pth")


def _wrong_shape_weights(project: Path) -> None:
    torch.save({"features.0.0.weight": torch.zeros(3, 3, 3, 3)}, project / "other.pth")
    _edit(project, "mobilenet_v3_small", "mobilenet_v3_small, weights: other.pth")


def _unknown_key(project: Path) -> None:
    _edit(project, "epochs: 1", "epoch: 1")


def _wrong_type(project: Path) -> None:
    _edit(project, "epochs: 1", "epochs: many")


def _not_yaml(project: Path) -> None:
    (project / "recipe.yaml").write_text("version: [1\ndata: }{")


def _unknown_method(project: Path) -> None:
    _edit(project, "method: frozen", "method: frozzen")


CASES: list[tuple[Callable[[Path], None], int, str]] = [
    (_missing_table, 3, "labels.csv"),
    (_empty_folder, 3, "images"),
    (_one_class, 3, "good"),
    (_class_without_images, 3, "scratched"),
    (_unknown_column, 3, "defct"),
    (_row_without_image, 3, "nowhere.png"),
    (_corrupt_test_image, 3, "broken.png"),
    (_empty_weights, 3, "empty.pth"),
    (_wrong_shape_weights, 3, "other.pth"),
    (_unknown_key, 2, "epochs"),
    (_wrong_type, 2, "many"),
    (_not_yaml, 2, "recipe.yaml"),
    (_unknown_method, 2, "frozen"),
]


@pytest.mark.parametrize(("spoil", "code", "named"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_a_mistake_is_named_and_nothing_is_left_behind(
    edgeft: Callable, project: Path, spoil: Callable[[Path], None], code: int, named: str
) -> None:
    spoil(project)
    ran = edgeft("build", project)
    assert ran.json["exit_code"] == ran.code
    assert (ran.code, named in f"{ran.json['message']} {ran.json['hint']}") == (code, True), ran.json
    assert not [path for path in project.glob("dist/**/*") if path.is_file()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=1m", "none", disk], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a small tmpfs needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_named_and_the_build_goes_on_once_there_is_room(
    edgeft: Callable, project: Path, small_disk: Path
) -> None:
    ran = edgeft("build", project, "--cache", small_disk / "cache", "--no-latency")
    assert ran.code == 4, ran.json
    assert str(small_disk) in ran.json["message"]


def test_a_read_only_output_is_refused_before_the_work(edgeft: Callable, project: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    ran = edgeft("build", project, "--out", small_disk / "bundle", "--no-latency")
    assert ran.code == 4, ran.json
    assert str(small_disk) in ran.json["message"]
    assert not (project / ".edgeft" / "store").exists() or not any((project / ".edgeft" / "store").iterdir())


def test_an_unwritable_cache_is_refused(edgeft: Callable, project: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    ran = edgeft("build", project, "--cache", small_disk / "cache")
    assert ran.code == 4, ran.json
    assert str(small_disk) in ran.json["message"]

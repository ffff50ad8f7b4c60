"""`edgeft init`: what it finds in data, and that the recipe room accepts what it writes."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from edgeft.cli.main import app
from edgeft.cli.survey import survey
from edgeft.core.errors import DataError

RUNNER = CliRunner()


def _images(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"not opened by init")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "Weld Seams"
    _images(root / "crack", [f"{i}.png" for i in range(3)])
    _images(root / "good", [f"{i}.JPG" for i in range(5)])
    (root / "good" / "notes.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    return root


def _table(tmp_path: Path, text: str, images: Sequence[str], name: str = "labels.csv") -> Path:
    _images(tmp_path / "images", images)
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_folder_of_class_folders(tree: Path) -> None:
    found = survey(tree)
    assert (found.structure, found.n) == ("folder", 8)
    assert found.classes == {"crack": 3, "good": 5}
    assert found.splits == {}
    assert found.ok_class == "good"


def test_split_folders_are_seen_and_kept(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("valid", 2), ("test", 1)):
        for name in ("ok", "scratch"):
            _images(tmp_path / split / name, [f"{i}.bmp" for i in range(count)])
    found = survey(tmp_path)
    assert found.splits == {"test": 2, "train": 8, "val": 4}
    assert found.classes == {"ok": 7, "scratch": 7}
    assert found.ok_class == "ok"


def test_a_table_with_a_header(tmp_path: Path) -> None:
    rows = [
        f"images/{i}.png,{'dent' if i % 3 else 'ok'},panel{i // 4},{'test' if i > 8 else 'train'}" for i in range(12)
    ]
    table = _table(tmp_path, "\n".join(["image,verdict,panel,subset", *rows]), [f"{i}.png" for i in range(12)])
    found = survey(table)
    assert (found.input, found.label, found.group, found.split) == ("image", "verdict", "panel", "subset")
    assert found.classes == {"ok": 4, "dent": 8}
    assert found.splits == {"train": 9, "test": 3}
    assert (found.header, found.images, found.delimiter, found.score) == (True, None, None, False)


def test_a_blank_separated_table_without_header_whose_label_is_a_probability(tmp_path: Path) -> None:
    rows = [f"images/{i}.png   {p}     mono" for i, p in enumerate((0.0, 1.0, 0.3333333333, 0.6666666666))]
    table = _table(tmp_path, "\n".join(rows), [f"{i}.png" for i in range(4)])
    found = survey(table)
    assert (found.header, found.delimiter, found.score) == (False, " ", True)
    assert found.columns == ("file", "label", "column2")
    assert found.classes == {}


def test_a_table_whose_images_lie_beside_its_folder(tmp_path: Path) -> None:
    _images(tmp_path / "images", ["a.png", "b.png"])
    (tmp_path / "data").mkdir()
    table = tmp_path / "data" / "labels.csv"
    table.write_text("file,label\nimages/a.png,x\nimages/b.png,y\n")
    assert survey(table).images == str(tmp_path)


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("", "empty"),
        ("file,label\n", "no rows"),
        ("name,label\nhello,1\nworld,2\n", "no column holds image paths"),
        ("file\nimages/0.png\n", "no column looks like a label"),
        ("file,label\nimages/9.png,a\nimages/0.png,b\n", "images/9.png"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, text: str, needle: str) -> None:
    table = _table(tmp_path, text, ["0.png"])
    with pytest.raises(DataError, match=needle) as caught:
        survey(table)
    assert str(table) in caught.value.message


def test_a_table_in_another_encoding_is_named(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_bytes("file,label\nü.png,a\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        survey(table)


def test_missing_data_and_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        survey(tmp_path / "nowhere")
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(DataError, match="not a table"):
        survey(tmp_path / "model.bin")


def test_one_class_is_not_enough_and_a_table_is_pointed_at(tmp_path: Path) -> None:
    _images(tmp_path / "images", ["a.png"])
    (tmp_path / "labels.csv").write_text("x")
    with pytest.raises(DataError, match="at least two classes") as caught:
        survey(tmp_path)
    assert "labels.csv" in (caught.value.hint or "")


def test_init_writes_a_recipe_once(tree: Path) -> None:
    first = RUNNER.invoke(app, ["init", str(tree)])
    assert first.exit_code == 0, first.stderr
    assert first.stdout.strip() == str(tree / "recipe.yaml")
    second = RUNNER.invoke(app, ["init", str(tree), "--json"])
    assert second.exit_code == 2
    assert "not overwritten" in json.loads(second.stdout)["message"]


def test_the_recipe_is_yaml_with_comments_and_the_data_s_own_facts(tree: Path) -> None:
    result = RUNNER.invoke(app, ["init", str(tree), "--json"])
    answer = json.loads(result.stdout)
    text = Path(answer["recipe"]).read_text()
    recipe = yaml.safe_load(text)
    assert recipe["data"]["source"] == "."
    assert recipe["data"]["ok_class"] == "good"
    assert recipe["bundle"]["name"] == "weld-seams"
    assert "8 images: crack 3, good 5" in text
    assert answer["found"]["classes"] == {"crack": 3, "good": 5}


def test_paths_are_relative_to_the_recipe(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "recipes" / "weld.yaml"
    assert RUNNER.invoke(app, ["init", str(tree), "--out", str(out)]).exit_code == 0
    source = yaml.safe_load(out.read_text())["data"]["source"]
    assert os.path.normpath(out.parent / source) == str(tree)


@pytest.mark.parametrize("kind", ["folder", "table", "score", "splits"])
def test_the_recipe_room_accepts_every_recipe_that_init_writes(kind: str, tree: Path, tmp_path: Path) -> None:
    from edgeft.recipe.load import load_recipe

    data = tree
    names = [f"{i}.png" for i in range(12)]
    if kind == "table":
        rows = [f"images/{name},{'yes' if i % 2 else 'no'},p{i // 4}" for i, name in enumerate(names)]
        data = _table(tmp_path, "\n".join(["file,label,panel", *rows]), names)
    elif kind == "score":
        data = _table(tmp_path, "\n".join(f"images/{name} {i / 11:.3f} mono" for i, name in enumerate(names)), names)
    elif kind == "splits":
        rows = [f"images/{name}\t{i % 3}\t{('train', 'val', 'test')[i % 3]}" for i, name in enumerate(names)]
        data = _table(tmp_path, "\n".join(["file\tclass\tsplit", *rows]), names, "labels.tsv")
    out = tmp_path / "made.yaml"
    result = RUNNER.invoke(app, ["init", str(data), "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    recipe = load_recipe(out)
    assert recipe.finetune.method.name == "gradual"
    assert recipe.verify.accuracy.max_drop_pp >= 1


@pytest.mark.parametrize(
    ("folder", "name"), [("2024", "2024"), ("Écran #3", "cran--3"), ("検査", "model"), ("on", "on")]
)
def test_the_bundle_s_name_is_plain_whatever_the_folder_is_called(folder: str, name: str, tmp_path: Path) -> None:
    from edgeft.recipe.load import load_recipe

    for label in ("bad", "good"):
        _images(tmp_path / folder / label, ["a.png"])
    assert RUNNER.invoke(app, ["init", str(tmp_path / folder)]).exit_code == 0
    assert load_recipe(tmp_path / folder).name == name


def test_far_away_data_is_named_by_its_absolute_path(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "c" / "recipe.yaml"
    assert RUNNER.invoke(app, ["init", str(tree), "--out", str(out)]).exit_code == 0
    assert yaml.safe_load(out.read_text())["data"]["source"] == str(tree)
    assert '" # 8 images' in out.read_text()

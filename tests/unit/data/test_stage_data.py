import importlib.util
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeft.core.errors import DataError, IntegrityError, UsageError
from edgeft.core.events import Event, Message, Progress
from edgeft.core.stage import Context
from edgeft.data.config import DataConfig
from edgeft.data.dataset import Dataset
from edgeft.data.stage import run

Make = Callable[..., DataConfig]
Place = Callable[..., Context]
Save = Callable[..., Path]

SPLIT = {"train": 0.6, "val": 0.2, "test": 0.2}


def header(folder: Path) -> dict[str, object]:
    return json.loads((folder / "dataset.json").read_text())


def finding(folder: Path, check: str) -> dict[str, object]:
    return next(item for item in header(folder)["audit"] if item["check"] == check)


def test_a_folder_tree_becomes_a_dataset(tree: Path, config: Make, context: Place) -> None:
    events: list[Event] = []
    result = run(context(events), {"source": tree, "images": tree}, config(ok_class="ok", split=SPLIT))
    dataset = Dataset.open(result.folder)
    assert dataset.classes == ("bad", "ok")
    assert (dataset.ok_class, dataset.positive_index) == ("ok", 0)
    assert header(result.folder)["counts"] == {
        "train": {"bad": 6, "ok": 6},
        "val": {"bad": 2, "ok": 2},
        "test": {"bad": 2, "ok": 2},
    }
    assert dataset.pixels.shape == (20, 32, 32, 3)
    for row in dataset.rows:
        with Image.open(tree / row.path) as image:
            expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
        assert np.array_equal(dataset.pixels[row.index], expected)
    together = np.concatenate([dataset.indices(split) for split in ("train", "val", "test")])
    assert sorted(together.tolist()) == list(range(20))
    assert [event.done for event in events if isinstance(event, Progress)] == [16, 20]
    assert result.measurements["n"] == 20
    assert "seconds" in result.timings


def test_equal_inputs_give_equal_bytes(tree: Path, config: Make, context: Place) -> None:
    for name, threads in (("first", 1), ("second", 2)):
        run(context(name=name, threads=threads), {"source": tree, "images": tree}, config())
    for name in ("dataset.json", "rows.jsonl", "pixels.npy"):
        first, second = (tree.parent / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_formats_give_the_same_picture(tmp_path: Path, save: Save, config: Make, context: Place) -> None:
    """Grey, alpha, 16 bits, palette, turned by EXIF: each file holds a picture whose upright 8-bit form is known."""
    root = tmp_path / "images"
    grey = np.asarray(Image.fromarray(np.arange(0, 256, dtype=np.uint8).reshape(16, 16)).resize((48, 48)))
    upright = Image.fromarray(np.stack([grey, 255 - grey, np.full_like(grey, 9)], axis=2))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn 90 degrees clockwise to see it upright
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    rgba = Image.fromarray(np.dstack([np.asarray(upright), np.full((48, 48), 255, dtype=np.uint8)]))
    rgba.putpixel((0, 0), (200, 100, 50, 0))
    seen: dict[str, np.ndarray] = {}
    (root / "x").mkdir(parents=True)
    Image.fromarray(grey).save(root / "x/grey.png")
    seen["x/grey.png"] = np.dstack([grey] * 3)
    Image.fromarray(grey.astype(np.uint16) * 257).save(root / "x/wide.png")
    seen["x/wide.png"] = np.dstack([grey] * 3)
    Image.fromarray(grey).convert("P").save(root / "x/palette.png")
    seen["x/palette.png"] = np.dstack([grey] * 3)
    rgba.save(root / "x/alpha.png")
    seen["x/alpha.png"] = np.asarray(upright).copy()
    seen["x/alpha.png"][0, 0] = 0
    turned.save(root / "x/turned.png", exif=exif)
    seen["x/turned.png"] = np.asarray(upright)
    for i in range(5):
        save(root / "y" / f"{i}.png", i)
    made = config(input={**config().input.model_dump(), "height": 48, "width": 48}, duplicates="report")
    result = run(context(), {"source": root, "images": root}, made)
    dataset = Dataset.open(result.folder)
    for row in dataset.rows:
        if row.class_name == "x":
            assert np.array_equal(dataset.pixels[row.index], seen[row.path]), row.path


def test_unreadable_images_are_quarantined_in_train_and_val(
    tmp_path: Path, save: Save, config: Make, context: Place
) -> None:
    root = tmp_path / "images"
    for split, first in (("train", 0), ("val", 40), ("test", 60)):
        for k, name in enumerate(("bad", "ok")):
            for i in range(4):
                save(root / split / name / f"{i}.png", first + 10 * k + i)
    (root / "train/bad/0.png").write_bytes(b"")
    whole = (root / "train/ok/1.png").read_bytes()
    (root / "train/ok/1.png").write_bytes(whole[: len(whole) // 2])
    (root / "val/ok/2.png").write_bytes(b"no picture at all")
    shutil.copy(root / "train/ok/3.png", root / "train/ok/3.gif")
    events: list[Event] = []
    result = run(context(events), {"source": root, "images": root}, config())
    gone = {item["path"]: item for item in header(result.folder)["quarantined"]}
    assert sorted(gone) == ["train/bad/0.png", "train/ok/1.png", "val/ok/2.png"]
    assert "0 bytes" in gone["train/bad/0.png"]["reason"]
    assert gone["val/ok/2.png"]["split"] == "val"
    dataset = Dataset.open(result.folder)
    assert len(dataset) == 21
    for row in dataset.rows:
        with Image.open(root / row.path) as image:
            expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
        assert np.array_equal(dataset.pixels[row.index], expected), row.path
    assert any("unreadable images" in event.text for event in events if isinstance(event, Message))
    assert "train/ok/3.gif: not an image" in finding(result.folder, "files passed over")["items"]


def test_an_unreadable_test_image_is_an_error(tmp_path: Path, save: Save, config: Make, context: Place) -> None:
    root = tmp_path / "images"
    for split, first in (("train", 0), ("val", 40), ("test", 60)):
        for k, name in enumerate(("bad", "ok")):
            save(root / split / name / "0.png", first + k)
    (root / "test/ok/0.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError) as caught:
        run(context(), {"source": root, "images": root}, config())
    assert "1 images of the test split cannot be read" in caught.value.message
    assert "test/ok/0.png" in caught.value.message


def test_a_class_that_loses_its_last_image_in_a_split_is_an_error(
    tmp_path: Path, save: Save, config: Make, context: Place
) -> None:
    root = tmp_path / "images"
    for split, first in (("train", 0), ("val", 40), ("test", 60)):
        for k, name in enumerate(("bad", "ok")):
            save(root / split / name / "0.png", first + k)
    (root / "val/bad/0.png").write_bytes(b"")
    with pytest.raises(DataError, match="the split val has no row of the class 'bad'"):
        run(context(), {"source": root, "images": root}, config())


def test_copies_leave_train_and_never_test(tmp_path: Path, save: Save, config: Make, context: Place) -> None:
    root = tmp_path / "images"
    for split, first in (("train", 0), ("val", 40), ("test", 60)):
        for k, name in enumerate(("bad", "ok")):
            for i in range(4):
                save(root / split / name / f"{i}.png", first + 10 * k + i)
    shutil.copy(root / "test/bad/0.png", root / "train/bad/copy.png")
    with Image.open(root / "test/ok/1.png") as image:
        image.save(root / "val/ok/resaved.jpg", quality=90)
    result = run(context(), {"source": root, "images": root}, config())
    paths = {row.path for row in Dataset.open(result.folder).rows}
    assert "train/bad/copy.png" not in paths
    assert "val/ok/resaved.jpg" not in paths
    assert {"test/bad/0.png", "test/ok/1.png"} <= paths
    assert len(paths) == 24
    exact = finding(result.folder, "exact copies across splits")
    near = finding(result.folder, "near copies across splits")
    assert exact["numbers"] == {"pairs": 1, "dropped": 1}
    assert near["numbers"] == {"pairs": 1, "dropped": 1}
    assert near["items"][0]["copy"] == "val/ok/resaved.jpg"
    assert near["items"][0]["kept"] == "test/ok/1.png"


def test_copies_can_be_refused_or_only_reported(tree: Path, config: Make, context: Place, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    lines = [f"{name}/{i}.png,{name},{s}" for name in ("bad", "ok") for i, s in enumerate(["train", "val", "test"])]
    shutil.copy(tree / "ok/0.png", tree / "ok/2.png")
    table.write_text("file,label,split\n" + "\n".join(lines) + "\n")
    inputs = {"source": table, "images": tree}
    with pytest.raises(DataError) as caught:
        run(context(name="a"), inputs, config(columns={"split": "split"}, duplicates="refuse"))
    assert "ok/0.png (train) and ok/2.png (test)" in caught.value.message
    result = run(context(name="b"), inputs, config(columns={"split": "split"}, duplicates="report"))
    assert len(Dataset.open(result.folder)) == 6
    assert "left in place" in finding(result.folder, "exact copies across splits")["message"]


def test_identical_pictures_with_two_labels_are_named(tree: Path, config: Make, context: Place) -> None:
    shutil.copy(tree / "ok/0.png", tree / "bad/0.png")
    result = run(context(), {"source": tree, "images": tree}, config(duplicates="report"))
    named = finding(result.folder, "contradictory labels")
    assert named["items"] == [[{"path": "bad/0.png", "class": "bad"}, {"path": "ok/0.png", "class": "ok"}]]


def test_limit_takes_the_same_few_of_each_class_and_split(tree: Path, config: Make, context: Place) -> None:
    chosen = []
    for name in ("first", "second"):
        result = run(context(name=name), {"source": tree, "images": tree}, config(limit=2))
        assert header(result.folder)["counts"] == {s: {"bad": 2, "ok": 2} for s in ("train", "val", "test")}
        chosen.append([row.path for row in Dataset.open(result.folder).rows])
    assert chosen[0] == chosen[1]


def test_a_limit_of_train_judges_by_all_of_val_and_test(tree: Path, config: Make, context: Place) -> None:
    whole = header(run(context(name="whole"), {"source": tree, "images": tree}, config()).folder)["counts"]
    folder = run(context(name="few"), {"source": tree, "images": tree}, config(limit={"train": 0.5})).folder
    half = {name: math.ceil(count / 2) for name, count in whole["train"].items()}
    assert header(folder)["counts"] == {**whole, "train": half}
    assert finding(folder, "limit")["message"] == "limited to 50% of each class in train"


def test_class_order_is_kept(tree: Path, config: Make, context: Place) -> None:
    result = run(context(), {"source": tree, "images": tree}, config(classes=["ok", "bad"]))
    dataset = Dataset.open(result.folder)
    assert dataset.classes == ("ok", "bad")
    assert all(row.label == ("ok", "bad").index(row.class_name) for row in dataset.rows)
    assert dataset.positive_index is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": ["ok", "bad", "worse"]}, "the class 'worse' of data.classes has no row"),
        ({"classes": ["ok", "other"]}, "label 'bad' is not one of data.classes (ok, other)"),
        ({"ok_class": "okay"}, "data.ok_class 'okay' is not a class; the classes are bad, ok"),
        ({"columns": {"label": "'same'"}}, "all 20 rows have the label 'same'"),
        ({"columns": {"group": "class"}}, "has no row of the class 'bad' (10 in 1 groups in all)"),
    ],
)
def test_bad_classes(tree: Path, config: Make, context: Place, values: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        run(context(), {"source": tree, "images": tree}, config(**values))
    assert message in caught.value.message


def test_one_class_folder_is_an_error(tmp_path: Path, save: Save, config: Make, context: Place) -> None:
    save(tmp_path / "images/ok/1.png", 1)
    with pytest.raises(DataError, match="all 1 rows have the label 'ok', expected at least two classes"):
        run(context(), {"source": tmp_path / "images", "images": tmp_path / "images"}, config())


def test_a_missing_input_block_is_an_error(tree: Path, context: Place) -> None:
    with pytest.raises(UsageError, match=r"data\.input is missing"):
        run(context(), {"source": tree, "images": tree}, DataConfig(source="x"))


def test_files_that_do_not_fit_together_are_refused(tree: Path, config: Make, context: Place) -> None:
    folder = run(context(), {"source": tree, "images": tree}, config()).folder
    lines = (folder / "rows.jsonl").read_text().splitlines(keepends=True)
    (folder / "rows.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(IntegrityError, match=r"dataset\.json says 20 rows, rows\.jsonl has 19"):
        Dataset.open(folder)
    (folder / "rows.jsonl").write_text("".join([*lines[:-1], '{"index": 19}\n']))
    with pytest.raises(IntegrityError, match="cannot read the row"):
        Dataset.open(folder)
    (folder / "rows.jsonl").write_text("".join(lines))
    (folder / "pixels.npy").unlink()
    with pytest.raises(DataError, match=r"pixels\.npy: missing"):
        Dataset.open(folder)


def test_real_solar_cells(config: Make, context: Place, tmp_path: Path) -> None:
    """The sample's recipe on the first 192 cells: blocks stay whole, labels follow the threshold."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        pytest.skip("the samples extra is not installed")
    root = Path(spec.origin).parent / "data"
    lines = (root / "labels.csv").read_text().splitlines()[:192]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    made = config(
        columns={
            "names": ["file", "probability", "type"],
            "input": "file",
            "label": "probability >= 0.5 -> defective else functional",
            "group": "block(index, 16)",
        },
        ok_class="functional",
        split=SPLIT,
    )
    result = run(context(), {"source": tmp_path / "labels.csv", "images": root}, made)
    dataset = Dataset.open(result.folder)
    assert len(dataset) == 192
    wanted = {line.split()[0]: "defective" if float(line.split()[1]) >= 0.5 else "functional" for line in lines}
    assert {row.path: row.class_name for row in dataset.rows} == wanted
    assert [row.group for row in dataset.rows] == [str(i // 16) for i in range(192)]
    splits_of_group = {group: {row.split for row in dataset.rows if row.group == group} for group in dataset.groups}
    assert all(len(splits) == 1 for splits in splits_of_group.values())
    assert finding(result.folder, "near copies across splits")["numbers"] == {"pairs": 0, "dropped": 0}
    assert header(result.folder)["quarantined"] == []


def test_rows_without_labels_stand_behind_the_labelled_ones(
    tree: Path, save: Save, config: Make, context: Place, tmp_path: Path
) -> None:
    more = tmp_path / "more"
    for number in range(5):
        save(more / "deep" / f"{number}.png", 900 + number)
    save(more / "again.png", 901)  # stands there twice
    save(more / "known.png", 3)  # a labelled one
    (more / "broken.png").write_bytes(b"no picture")
    (more / "notes.txt").write_text("nothing")
    inputs = {"source": tree, "images": tree}
    plain = Dataset.open(run(context(name="plain"), inputs, config()).folder)
    with Image.open(tree / plain.rows[plain.indices("test")[0]].path) as image:
        image.save(more / "resaved.jpg", quality=90)  # a near copy of one that is tested on
    result = run(context(), {**inputs, "unlabelled": more}, config(unlabelled="more"))
    data = Dataset.open(result.folder)
    assert len(data) == len(plain) + 5
    assert data.rows[: len(plain)] == plain.rows
    assert np.array_equal(data.pixels[: len(plain)], plain.pixels)
    rows = [data.rows[index] for index in data.indices("unlabelled")]
    assert [row.path for row in rows] == ["unlabelled/again.png", *(f"unlabelled/deep/{n}.png" for n in (0, 2, 3, 4))]
    assert {(row.label, row.class_name) for row in rows} == {(-1, "")}
    for row in rows:
        with Image.open(more / row.path.removeprefix("unlabelled/")) as image:
            expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
        assert np.array_equal(data.pixels[row.index], expected)
    told = finding(result.folder, "unlabelled")
    assert (told["numbers"], told["severity"]) == ({"taken": 5, "of": 9}, "warning")
    assert header(result.folder)["counts"] == header(plain.folder)["counts"]
    few = run(context(name="few"), {**inputs, "unlabelled": more}, config(unlabelled="more", unlabelled_limit=3))
    data = Dataset.open(few.folder)
    found = [data.rows[index].path for index in data.indices("unlabelled")]
    assert found == ["unlabelled/again.png", "unlabelled/deep/4.png"]  # of again, deep/1 (the same picture), deep/4
    told = finding(few.folder, "unlabelled")
    assert told["numbers"] == {"taken": 2, "of": 9}
    assert told["message"].endswith("or beyond data.unlabelled_limit (3)")


def test_nothing_new_without_a_label_is_refused(
    tree: Path, save: Save, config: Make, context: Place, tmp_path: Path
) -> None:
    inputs = {"source": tree, "images": tree}
    (tmp_path / "empty").mkdir()
    save(tmp_path / "known" / "a.png", 3)
    for number, (place, said) in enumerate(
        (("empty", "holds no image"), ("known", "none of 1 rows is left"), ("gone", "is no folder"))
    ):
        with pytest.raises(DataError, match=rf"data\.unlabelled: .*{said}"):
            run(context(name=f"out{number}"), {**inputs, "unlabelled": tmp_path / place}, config(unlabelled=place))

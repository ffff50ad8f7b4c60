"""What a model is calibrated and judged on: arrays and image folders, and every way they can be wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeft.core.errors import DataError, EdgeftError, UsageError
from edgeft.data.samples import InputSpec, Normalisation, Samples, read_samples

FLOAT = InputSpec("x", "float32", (3, 4, 4))
PIXELS = InputSpec("pixels", "uint8", (4, 4, 3))
PLAIN = Normalisation((0.0,), (1.0,))


def read(path: Path, spec: InputSpec = FLOAT, **how: Any) -> Samples:  # noqa: ANN401 - read_samples' options
    return read_samples(path, (spec,), target=path.parent / "pixels.npy", **how)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes of plain colours, listed in an order that is not sorted."""
    for name, level in (("b", 200), ("a", 10)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(3):
            pixels = np.full((4, 4, 3), level + index, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    return tmp_path / "images"


def test_an_npz_gives_rows_and_labels(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(10, 3, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, labels=np.arange(10, dtype=np.uint8) % 2)
    found = read(tmp_path / "d.npz")
    np.testing.assert_array_equal(found[2:5]["x"], x[2:5])
    assert found.labels is not None
    assert (found.labels.dtype, found.labels.tolist()) == (np.int64, [0, 1] * 5)
    assert found.sizes == {"x": (3, 4, 4)}
    few = read(tmp_path / "d.npz", limit=4, seed=1)
    assert few.labels is not None
    for row, label in zip(few[:4]["x"], few.labels, strict=True):
        (index,) = np.flatnonzero((x == row).all(axis=(1, 2, 3)))
        assert label == index % 2


def test_an_npy_is_the_input_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.ones((2, 3, 4, 4), np.float32))
    assert read(tmp_path / "d.npy").labels is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.ones((2, 3, 4, 4), np.float32)}, r"d\.npz: holds the arrays 'y'; expected 'x'"),
        ({"x": np.ones((2, 3, 4, 4), np.float32), "z": np.ones(2)}, "holds the arrays 'x', 'z'"),
        ({"x": np.ones((2, 3, 4, 4))}, "array 'x' is float64, but the model takes 'x': float32"),
        ({"x": np.ones((2, 3, 4, 5), np.float32)}, r"array 'x' has shape \[2, 3, 4, 5\]"),
        ({"x": np.ones((3, 4, 4), np.float32)}, r"array 'x' has shape \[3, 4, 4\]"),
        ({"x": np.ones((0, 3, 4, 4), np.float32)}, "array 'x' is empty"),
        ({"x": np.ones((2, 3, 4, 4), np.float32), "labels": np.ones(3, np.int64)}, r"'labels' is int64 \[3\]"),
        ({"x": np.ones((2, 3, 4, 4), np.float32), "labels": np.ones(2)}, r"'labels' is float64 \[2\]"),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "d.npz")


def test_several_inputs_come_from_one_npz(tmp_path: Path) -> None:
    specs = tuple(InputSpec(name, "int64", (None,)) for name in ("ids", "mask"))

    def both(path: Path) -> Samples:
        return read_samples(path, specs, target=tmp_path / "pixels.npy")

    ids = np.arange(12).reshape(4, 3)
    np.savez(tmp_path / "d.npz", ids=ids, mask=ids > 0)
    with pytest.raises(DataError, match="array 'mask' is bool, but the model takes 'mask': int64"):
        both(tmp_path / "d.npz")
    np.savez(tmp_path / "d.npz", ids=ids, mask=np.ones_like(ids), labels=np.zeros(4, int))
    found = both(tmp_path / "d.npz")
    assert (len(found), found.sizes) == (4, {"ids": (3,), "mask": (3,)})
    np.testing.assert_array_equal(found[1:3]["ids"], ids[1:3])
    np.savez(tmp_path / "d.npz", ids=ids, mask=np.ones((3, 3), int))
    with pytest.raises(DataError, match="array 'mask' has 3 rows, the first input has 4"):
        both(tmp_path / "d.npz")
    np.savez(tmp_path / "d.npz", ids=ids)
    with pytest.raises(DataError, match="expected 'ids' and 'mask'"):
        both(tmp_path / "d.npz")
    np.save(tmp_path / "d.npy", ids)
    with pytest.raises(UsageError, match=r"holds one array, but the model takes 2 inputs"):
        both(tmp_path / "d.npy")


def test_files_that_hold_no_arrays_are_refused(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(b"PK nothing")
    (tmp_path / "d.csv").write_text("1,2")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for name in ("d.npz", "d.csv", "objects.npy", "gone.npy"):
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            read(tmp_path / name)


def test_class_folders_give_sorted_classes_and_normalised_pixels(tree: Path) -> None:
    found = read(tree, normalisation=Normalisation((100.0, 50.0, 0.0), (2.0, 2.0, 4.0)))
    assert found.classes == ("a", "b")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    first = found[:1]["x"]
    assert (first.shape, first.dtype) == ((1, 3, 4, 4), np.float32)
    np.testing.assert_allclose(first[0, :, 0, 0], [(10 - 100) / 2, (10 - 50) / 2, 10 / 4])


def test_a_pixel_input_takes_pixels_as_they_are(tree: Path) -> None:
    found = read(tree, PIXELS, limit=4, seed=0)
    assert len(found) == 4
    pixels = found[:4]["pixels"]
    assert pixels.dtype == np.uint8
    assert set(pixels[:, 0, 0, 0].tolist()) <= {10, 11, 12, 200, 201, 202}
    assert found.sizes == {"pixels": (4, 4, 3)}


def test_a_flat_folder_has_no_labels(tree: Path) -> None:
    found = read(tree / "a", PIXELS)
    assert (len(found), found.labels, found.classes) == (3, None, None)


@pytest.mark.parametrize(
    ("spec", "how", "message"),
    [
        (FLOAT, {}, "need --mean and --std"),
        (PIXELS, {"normalisation": PLAIN}, "nothing to act on"),
        (InputSpec("x", "float32", (3, None, None)), {"normalisation": PLAIN}, "leaves sizes open"),
        (InputSpec("x", "float32", (1, 4, 4)), {"normalisation": PLAIN}, "three channels"),
        (InputSpec("x", "float32", (7,)), {"normalisation": PLAIN}, "images do not fit"),
        (InputSpec("x", "int64", (3, 4, 4)), {"normalisation": PLAIN}, "images do not fit"),
    ],
)
def test_images_that_cannot_become_inputs(tree: Path, spec: InputSpec, how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(tree, spec, **how)


def test_a_normalisation_is_for_images_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.ones((2, 3, 4, 4), np.float32))
    with pytest.raises(UsageError, match="--mean and --std are for images"):
        read(tmp_path / "d.npy", normalisation=PLAIN)


def test_an_unreadable_image_is_named_and_none_is_skipped(tree: Path) -> None:
    (tree / "b" / "1.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"b/1\.png.*1 of 6 images"):
        read(tree, PIXELS)


def test_folders_without_classes_or_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        read(tmp_path / "empty", PIXELS)
    for split in ("train", "val"):
        (tmp_path / "splits" / split).mkdir(parents=True)
        (tmp_path / "splits" / split / "a").mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / "splits" / split / "a" / "0.png")
    with pytest.raises(DataError, match="holds the splits 'train', 'val'"):
        read(tmp_path / "splits", PIXELS)


def test_labels_must_fit_the_model(tmp_path: Path, tree: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.ones((2, 3, 4, 4), np.float32), labels=np.array([0, 5]))
    with pytest.raises(DataError, match=r"'labels' holds 0\.\.5, but the model has 3 outputs"):
        read(tmp_path / "d.npz").require_classes(3)
    read(tmp_path / "d.npz").require_classes(6)
    with pytest.raises(EdgeftError, match=r"2 class folders \('a', 'b'\), but the model has 3 outputs"):
        read(tree, PIXELS).require_classes(3)


def test_rows_that_are_drawn_are_in_no_order_of_classes(tmp_path: Path) -> None:
    """The first few round weights: of data sorted by class they have to be of all classes."""
    x = np.zeros((200, 3, 4, 4), np.float32)
    np.savez(tmp_path / "d.npz", x=x, labels=np.arange(200) // 50)
    for limit in (100, 500):
        found = read(tmp_path / "d.npz", limit=limit, seed=0)
        assert found.labels is not None
        assert len(found) == min(limit, 200)
        assert set(found.labels[:24].tolist()) == {0, 1, 2, 3}

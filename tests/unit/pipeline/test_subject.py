"""What `bench` and `compare` look at: bundles and bare files, what they are timed on, what they are judged on."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DataError, DeviceError, IntegrityError, UsageError
from edgeft.pipeline.subject import Subject, open_subject, read_labelled, requests, require_alike
from edgeft.runtime.worker import Request

CLASSES = ("red", "green", "blue")
PIXELS, LABELS = np.zeros((4, 16, 16, 3), np.uint8), np.array([0, 1, 2, 0])


@pytest.fixture
def bundle(tiny_bundle: Path) -> Subject:
    return open_subject(tiny_bundle)


@pytest.fixture
def bare(tiny_graph: Path) -> Subject:
    return open_subject(tiny_graph)


@pytest.fixture
def make_reshaped(tiny_graph: Path, tmp_path: Path) -> Callable[[list[int]], Path]:
    def make(shape: list[int]) -> Path:
        model = onnx.load(tiny_graph)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), "shape"))
        model.graph.node.append(onnx.helper.make_node("Reshape", ["scores", "shape"], ["reshaped"]))
        model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("reshaped", onnx.TensorProto.FLOAT, None))
        onnx.save(model, tmp_path / "reshaped.onnx")
        return tmp_path / "reshaped.onnx"

    return make


def test_a_bundle_brings_its_classes_pixels_and_raw_files(tiny_bundle: Path, bundle: Subject) -> None:
    assert (bundle.path, bundle.model, bundle.name) == (tiny_bundle, tiny_bundle / "model.onnx", "tiny")
    assert bundle.sha256 == sha256_bytes((tiny_bundle / "model.onnx").read_bytes())
    assert bundle.classes == CLASSES
    assert bundle.contract is not None
    assert bundle.golden is not None
    assert bundle.golden["pixels"].shape == (16, 16, 16, 3)
    assert len(bundle.raw) == 4


def test_a_bare_file_brings_a_graph_alone(tiny_graph: Path, bare: Subject) -> None:
    assert (bare.path, bare.model, bare.name) == (tiny_graph, tiny_graph, "model")
    assert (bare.classes, bare.contract, bare.golden, bare.raw) == ((), None, None, ())
    assert bare.to_json()["input"] == ["pixels: uint8 ['N', 16, 16, 3]"]


def test_a_changed_bundle_is_refused(tiny_bundle: Path) -> None:
    (tiny_bundle / "LICENSES.md").write_text("mine\n")
    with pytest.raises(IntegrityError, match=r"LICENSES\.md"):
        open_subject(tiny_bundle)


def test_what_is_no_model_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(IntegrityError, match=r"a\.onnx"):
        open_subject(tmp_path / "a.onnx")
    with pytest.raises(DeviceError, match=r"gone\.onnx"):
        open_subject(tmp_path / "gone.onnx")


def test_scores_are_onnxruntimes_one_image_at_a_time(bare: Subject, tiny_data: Path) -> None:
    pixels = np.load(tiny_data / "pixels.npy")[:5]
    session = ort.InferenceSession(bare.model.read_bytes(), providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"pixels": one[None]})[0] for one in pixels])
    np.testing.assert_array_equal(bare.scores({"pixels": pixels}, threads=1), expected)


@pytest.mark.parametrize("shape", [[-1], [1, -1, 1]])
def test_an_output_that_is_no_row_of_scores_is_refused(
    make_reshaped: Callable[[list[int]], Path], shape: list[int]
) -> None:
    with pytest.raises(DataError, match=r"an output of shape .* expected \[1, K\]"):
        open_subject(make_reshaped(shape)).scores({"pixels": PIXELS}, threads=1)


def test_models_of_one_task_are_alike(bundle: Subject, bare: Subject, make_bundle: Callable[..., Path]) -> None:
    require_alike(bundle, open_subject(make_bundle("again")))
    require_alike(bundle, bare)  # a bare file does not say what it tells apart
    require_alike(bare, bundle)


@pytest.mark.parametrize(
    ("head", "named"),
    [
        ({"classes": ["red", "green", "grey"]}, "classes ['red', 'green', 'blue'] against ['red', 'green', 'grey']"),
        ({"classes": ["green", "red", "blue"]}, "classes"),
        ({"input": "std"}, "preprocessing"),
    ],
)
def test_other_classes_or_preprocessing_are_refused(
    bundle: Subject, make_bundle: Callable[..., Path], head: dict[str, Any], named: str
) -> None:
    assert bundle.contract is not None
    contract = bundle.contract.to_json()
    changed = {"input": {**contract, "std": [64.0, 64.0, 64.0]}} if "input" in head else head
    with pytest.raises(DataError) as caught:
        require_alike(bundle, open_subject(make_bundle("other", head=changed)))
    assert named in caught.value.message


def test_another_input_size_is_refused(bare: Subject, make_model: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"input .*16, 16, 3.* against .*24, 24, 3"):
        require_alike(bare, open_subject(make_model("large.onnx", side=24)))


def ask(subject: Subject, data: str | None, folder: Path) -> tuple[Request, Request | None]:
    return requests(subject, data, folder, threads=2, spinning=True, samples=7, seconds=1.5)


def test_a_bundle_is_timed_on_its_golden_images(bundle: Subject, tmp_path: Path) -> None:
    for data in (None, "golden"):
        model, raw = ask(bundle, data, tmp_path)
        assert (model.model, model.threads, model.spinning) == (str(bundle.model), 2, True)
        assert (model.samples, model.max_seconds, model.images) == (7, 1.5, ())
        assert model.inputs == str(tmp_path / "golden.npy")
        np.testing.assert_array_equal(np.load(tmp_path / "golden.npy"), bundle.golden["pixels"])  # type: ignore[index]  # a bundle has them
        assert raw is not None
        assert [Path(path).read_bytes() for path in raw.images] == list(bundle.raw)
        assert raw.contract == bundle.contract.to_json()  # type: ignore[union-attr]  # a bundle has one
        assert raw.inputs is None


def test_a_bare_file_is_timed_on_noise(bare: Subject, bundle: Subject, tmp_path: Path) -> None:
    for subject, data in ((bare, None), (bare, "noise"), (bundle, "noise")):
        model, raw = ask(subject, data, tmp_path)
        assert (model.inputs, raw) == (None, None)


def test_a_folder_is_timed_on_images_spread_over_it(bundle: Subject, tiny_images: Path, tmp_path: Path) -> None:
    model, raw = ask(bundle, str(tiny_images), tmp_path)
    assert np.load(tmp_path / "images.npy").shape == (16, 16, 16, 3)
    assert model.inputs == str(tmp_path / "images.npy")
    assert raw is not None
    assert {Path(image).parent.name for image in raw.images} == set(CLASSES)


def test_arrays_are_handed_on(bare: Subject, tmp_path: Path) -> None:
    model, raw = ask(bare, "mine.npz", tmp_path)
    assert (model.inputs, raw) == ("mine.npz", None)


def test_a_bare_file_has_no_golden_images_and_takes_no_folder(bare: Subject, tiny_images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no golden images"):
        ask(bare, "golden", tmp_path)
    with pytest.raises(UsageError, match="how an image becomes its input"):
        ask(bare, str(tiny_images), tmp_path)


def test_a_folder_without_images_times_nothing(bundle: Subject, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none")
    with pytest.raises(DataError, match="empty: holds no image"):
        ask(bundle, str(tmp_path / "empty"), tmp_path)


def test_class_folders_are_labelled_by_the_bundles_order(bundle: Subject, tiny_images: Path, tiny_data: Path) -> None:
    arrays, labels = read_labelled(tiny_images, bundle)
    pixels = arrays["pixels"]
    assert (pixels.shape, pixels.dtype) == ((72, 16, 16, 3), np.uint8)
    assert np.bincount(labels).tolist() == [24, 24, 24]
    assert labels[0] == CLASSES.index("blue")  # folders by name, labels by the bundle
    known = {row.tobytes() for row in np.load(tiny_data / "pixels.npy")}
    assert {row.tobytes() for row in pixels} == known


def test_a_class_may_have_no_folder(bundle: Subject, tiny_images: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_images / "green", tmp_path / "data" / "green")
    (tmp_path / "data" / ".cache").mkdir()
    _, labels = read_labelled(tmp_path / "data", bundle)
    assert set(labels.tolist()) == {1}


def test_a_folder_that_is_no_class_is_named(bundle: Subject, tiny_images: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_images, tmp_path / "data")
    (tmp_path / "data" / "purple").mkdir()
    with pytest.raises(DataError, match=r"'purple' is a class of .*: expected red, green, blue"):
        read_labelled(tmp_path / "data", bundle)


def test_data_without_a_single_image_is_refused(bundle: Subject, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="no folder is a class of"):
        read_labelled(tmp_path / "data", bundle)
    (tmp_path / "data" / "red").mkdir()
    with pytest.raises(DataError, match="red: holds no image"):
        read_labelled(tmp_path / "data", bundle)


def test_an_image_that_cannot_be_read_is_named(bundle: Subject, tmp_path: Path) -> None:
    (tmp_path / "data" / "red").mkdir(parents=True)
    Image.fromarray(PIXELS[0]).save(tmp_path / "data" / "red" / "a.png")
    (tmp_path / "data" / "red" / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png"):
        read_labelled(tmp_path / "data", bundle)


def test_class_folders_need_a_bundle(bare: Subject, tiny_images: Path) -> None:
    with pytest.raises(UsageError, match="class folders need a bundle"):
        read_labelled(tiny_images, bare)


def test_arrays_are_judged_as_they_are(bare: Subject, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pixels=PIXELS, labels=LABELS.astype(np.uint8))
    arrays, labels = read_labelled(tmp_path / "a.npz", bare)
    np.testing.assert_array_equal(arrays["pixels"], PIXELS)
    np.testing.assert_array_equal(labels, LABELS)
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"pixels": PIXELS}, "labels"),
        ({"x": PIXELS, "labels": LABELS}, "pixels"),
        ({"pixels": PIXELS.astype(np.float32), "labels": LABELS}, "pixels float32"),
        ({"pixels": PIXELS[:, :8], "labels": LABELS}, r"\[4, 8, 16, 3\]"),
        ({"pixels": PIXELS[0], "labels": LABELS}, r"\[16, 16, 3\]"),
        ({"pixels": PIXELS, "labels": LABELS[:3]}, r"labels int64 \[3\] for 4 images"),
        ({"pixels": PIXELS, "labels": LABELS / 2}, "labels float64"),
        ({"pixels": PIXELS, "labels": LABELS[:, None]}, r"labels int64 \[4, 1\]"),
        ({"pixels": PIXELS[:0], "labels": LABELS[:0]}, "for 0 images"),
        ({}, "pixels"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    bare: Subject, tmp_path: Path, arrays: dict[str, np.ndarray], named: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]  # arrays by name
    with pytest.raises(DataError, match=named) as caught:
        read_labelled(tmp_path / "a.npz", bare)
    assert "np.savez" in (caught.value.hint or "")


def _missing(path: Path) -> None:
    del path


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("pixels, labels")


def _one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, PIXELS)


def _truncated(path: Path) -> None:
    np.savez(path, pixels=PIXELS, labels=LABELS)
    path.write_bytes(path.read_bytes()[:-100])


def _damaged(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("pixels.npy", np.random.default_rng(0).bytes(4000))
        file.writestr("labels.npy", b"")
    data = bytearray(path.read_bytes())
    data[100:200] = bytes(100)
    path.write_bytes(data)


def _deflated(path: Path) -> None:
    np.savez_compressed(path, pixels=np.random.default_rng(0).integers(0, 9, PIXELS.shape, np.uint8), labels=LABELS)
    data = bytearray(path.read_bytes())
    data[300:340] = b"\xff" * 40
    path.write_bytes(data)


@pytest.mark.parametrize("write", [_missing, _empty, _text, _one_array, _truncated, _damaged, _deflated])
def test_a_file_that_holds_no_arrays_by_name_is_refused(
    bare: Subject, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"a\.npz: no pixels and labels to judge by"):
        read_labelled(tmp_path / "a.npz", bare)

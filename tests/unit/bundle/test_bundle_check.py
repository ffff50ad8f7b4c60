import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeft.bundle.check import check
from edgeft.bundle.golden import from_bytes, spread
from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DeviceError, IntegrityError
from edgeft.runtime import load
from edgeft.runtime.manifest import manifest_bytes, seal

FILES = [
    *("manifest.json", "model.onnx", "golden.npz", "LICENSES.md", "report.html", "report.json", "MODEL_CARD.md"),
    "sbom.cdx.json",
]


def test_an_untouched_bundle_passes(tiny_bundle: Path) -> None:
    found = check(tiny_bundle)
    assert (found.files, found.golden_rows, found.raw_rows) == (8, 16, 4)
    assert found.max_abs_score_error == 0.0
    assert found.raw_inputs_equal
    assert found.notes == ()
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_anywhere_is_refused(tiny_bundle: Path, name: str) -> None:
    path = tiny_bundle / name
    good = path.read_bytes()
    places = np.random.default_rng(0).integers(0, len(good), 40).tolist()
    for place in {0, len(good) // 2, len(good) - 1, *places}:
        bad = bytearray(good)
        bad[place] ^= 1
        path.write_bytes(bytes(bad))
        for use in (check, load):
            with pytest.raises(IntegrityError, match=name.replace(".", r"\.")) as error:
                use(tiny_bundle)
            assert error.value.exit_code == 8
            assert error.value.hint


@pytest.mark.parametrize("name", FILES)
def test_truncated_and_missing_files_are_named(tiny_bundle: Path, name: str) -> None:
    path = tiny_bundle / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(IntegrityError, match=name.replace(".", r"\.")):
        check(tiny_bundle)
    path.unlink()
    with pytest.raises(IntegrityError, match=name.replace(".", r"\.")):
        check(tiny_bundle)


def test_extra_files_folders_and_links_are_refused(tiny_bundle: Path) -> None:
    (tiny_bundle / "weights.bin").write_text("x")
    with pytest.raises(IntegrityError, match=r"weights\.bin not listed"):
        check(tiny_bundle)
    (tiny_bundle / "weights.bin").unlink()
    (tiny_bundle / "sub").mkdir()
    with pytest.raises(IntegrityError, match="sub: not a plain file"):
        check(tiny_bundle)
    (tiny_bundle / "sub").rmdir()
    moved = tiny_bundle.parent / "model.onnx"
    (tiny_bundle / "model.onnx").rename(moved)
    (tiny_bundle / "model.onnx").symlink_to(moved)
    with pytest.raises(IntegrityError, match=r"model\.onnx: not a plain file"):
        check(tiny_bundle)


def test_what_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="not a bundle folder"):
        check(tmp_path / "gone")
    with pytest.raises(IntegrityError, match=r"no manifest\.json"):
        check(tmp_path)


def resealed(bundle: Path, **changes: Any) -> None:  # noqa: ANN401 - any manifest value
    """What someone who knows the format can do without a signature: change it and seal it again."""
    values = json.loads((bundle / "manifest.json").read_text())
    values = {**values, **changes}
    values = {key: value for key, value in values.items() if value is not ...}
    (bundle / "manifest.json").write_bytes(manifest_bytes(seal(values)))


def exchanged(bundle: Path, name: str, data: bytes) -> None:
    (bundle / name).write_bytes(data)
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    resealed(bundle, files={**files, name: sha256_bytes(data)})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"schema": 2}, "schema 2"),
        ({"task": ...}, "task"),
        ({"surprise": 1}, "surprise"),
        ({"decision": {"method": "threshold"}}, "decision"),
        ({"input": {"height": 3}}, "input contract"),
        ({"classes": 7}, "not iterable"),
        ({"classes": ["red", "green"]}, "scores"),
        ({"files": {}}, "not listed"),
    ],
)
def test_a_resealed_manifest_that_makes_no_sense_is_refused(
    tiny_bundle: Path, changes: dict[str, Any], why: str
) -> None:
    resealed(tiny_bundle, **changes)
    with pytest.raises(IntegrityError, match=why):
        check(tiny_bundle)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"schema": 1}'])
def test_a_manifest_that_is_none_is_refused(tiny_bundle: Path, text: str) -> None:
    (tiny_bundle / "manifest.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        check(tiny_bundle)


def test_another_model_is_caught_by_the_golden_vectors(tiny_bundle: Path) -> None:
    """A bundle whose digests all match, but whose model is not the one that was verified."""
    from onnx import ModelProto, numpy_helper

    model = ModelProto.FromString((tiny_bundle / "model.onnx").read_bytes())
    for tensor in model.graph.initializer:
        if tensor.name == "weight":
            tensor.CopyFrom(numpy_helper.from_array(4.2 * np.eye(3, dtype=np.float32), "weight"))
    exchanged(tiny_bundle, "model.onnx", model.SerializeToString())
    with pytest.raises(IntegrityError, match=r"golden vectors: row \d+ scores"):
        check(tiny_bundle)


def test_another_preprocessing_is_caught_by_the_raw_files(tiny_bundle: Path) -> None:
    contract = json.loads((tiny_bundle / "manifest.json").read_text())["input"]
    resealed(tiny_bundle, input={**contract, "filter": "lanczos"})
    with pytest.raises(IntegrityError, match="raw_0 decodes to pixels that differ by"):
        check(tiny_bundle)


def npz(**arrays: Any) -> bytes:  # noqa: ANN401 - arrays
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


PIXELS, SCORES = np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        npz(pixels=PIXELS),
        npz(pixels=PIXELS, scores=SCORES[:1], atol=0.1),
        npz(pixels=PIXELS.astype(np.float32), scores=SCORES, atol=0.1),
        npz(pixels=PIXELS[:0], scores=SCORES[:0], atol=0.1),
        npz(pixels=np.array([{"a": 1}], dtype=object), scores=SCORES, atol=0.1),
    ],
)
def test_golden_vectors_that_cannot_be_read_are_named(tiny_bundle: Path, data: bytes) -> None:
    exchanged(tiny_bundle, "golden.npz", data)
    with pytest.raises(IntegrityError, match=r"golden\.npz"):
        check(tiny_bundle)


def test_a_bundle_without_raw_files_says_so(tiny_bundle: Path) -> None:
    golden = from_bytes((tiny_bundle / "golden.npz").read_bytes(), "g")
    exchanged(tiny_bundle, "golden.npz", npz(**golden.inputs, scores=golden.scores, atol=golden.atol))
    assert "holds nothing raw" in check(tiny_bundle).notes[0]


def test_spread_takes_both_ends() -> None:
    assert spread(100, 3) == [0, 50, 99]
    assert spread(2, 16) == [0, 1]
    assert spread(1, 16) == [0]

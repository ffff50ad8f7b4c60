import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeft.core.errors import DataError, DeviceError, IntegrityError
from edgeft.runtime import load
from edgeft.runtime.manifest import manifest_bytes, seal
from edgeft.runtime.session import Model

CLASSES = ("red", "green", "blue")


def softmax_by_hand(pixels: np.ndarray) -> np.ndarray:
    logits = 4.0 * ((pixels.astype(np.float64) - 127) / 128).mean(axis=(0, 1))
    scores = np.exp(logits - logits.max())
    return scores / scores.sum()


def test_predictions_are_those_worked_out_by_hand(tiny_bundle: Path, tiny_images: Path) -> None:
    paths = [tiny_images / name / f"{index}.png" for name in CLASSES for index in (0, 2)]
    found = load(tiny_bundle).predict(paths)
    assert [one.label for one in found] == ["red", "red", "green", "green", "blue", "blue"]
    assert [one.index for one in found] == [0, 0, 1, 1, 2, 2]
    assert [one.path for one in found] == paths
    for path, one in zip(paths, found, strict=True):
        pixels = np.asarray(Image.open(path).resize((16, 16), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(one.scores, softmax_by_hand(pixels), atol=1e-6)


def test_raw_files_and_stored_pixels_agree_bit_for_bit(tiny_bundle: Path, tiny_images: Path, tiny_data: Path) -> None:
    predictor = load(tiny_bundle)
    stored = np.load(tiny_data / "pixels.npy")
    rows = [json.loads(line) for line in (tiny_data / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 72
    paths = [tiny_images / row["path"] for row in rows]
    for path, pixels in zip(paths, stored, strict=True):
        np.testing.assert_array_equal(predictor.encode(path, "x")["pixels"], pixels[None])
    expected = predictor.scores({"pixels": stored})
    found = np.array([one.scores for one in predictor.predict(paths)], np.float32)
    assert found.tobytes() == expected.tobytes()


def test_every_kind_of_source_gives_the_same(tiny_bundle: Path, tiny_images: Path) -> None:
    path = tiny_images / "blue" / "4.png"
    image = Image.open(path)
    sources = [path, str(path), path.read_bytes(), image, np.asarray(image)]
    found = load(tiny_bundle).predict(sources)
    assert len({one.scores for one in found}) == 1
    assert [one.path for one in found] == [path, path, None, None, None]


def test_nothing_is_skipped(tiny_bundle: Path, tiny_images: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        load(tiny_bundle).predict([tiny_images / "red" / "0.png", bad])
    with pytest.raises(DataError, match="image 0: float64"):
        load(tiny_bundle).predict([np.zeros((4, 4, 3))])
    assert load(tiny_bundle).predict([]) == []


def test_threads_must_be_positive(tiny_bundle: Path) -> None:
    with pytest.raises(DeviceError, match="0 threads"):
        load(tiny_bundle, threads=0)


def test_what_is_no_deployment_graph_is_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    def graph(name: str, kind: int, shape: list[object], output: str) -> bytes:
        node = helper.make_node("Identity", [name], [output])
        ends = [helper.make_tensor_value_info(end, kind, shape) for end in (name, output)]
        made = helper.make_graph([node], "g", ends[:1], ends[1:])
        opset = [helper.make_opsetid("", 18)]
        return bytes(helper.make_model(made, opset_imports=opset, ir_version=10).SerializeToString())

    cases = [
        (graph("x", TensorProto.FLOAT, ["N", 4], "scores"), "inputs"),
        (graph("pixels", TensorProto.FLOAT, ["N", 4, 4, 3], "scores"), "inputs"),
        (graph("pixels", TensorProto.UINT8, ["N", 4, 4, 3], "y"), "outputs"),
        (graph("pixels", TensorProto.UINT8, ["N", "H", 4, 3], "scores"), "fixed sides"),
        (b"\x08\x01", "cannot load"),
    ]
    for data, why in cases:
        with pytest.raises(IntegrityError, match=why):
            Model(data, "m.onnx")
    with pytest.raises(DeviceError, match=r"gone\.onnx"):
        Model.open(tmp_path / "gone.onnx")


def with_decision(bundle: Path, **changes: object) -> None:
    values = json.loads((bundle / "manifest.json").read_text())
    rule = {
        "method": "threshold",
        "ok": "green",
        "stop_at": 0.23,
        "sure_at": 0.885,
        "model": values["files"]["model.onnx"],
    }
    (bundle / "manifest.json").write_bytes(manifest_bytes(seal({**values, "decision": {**rule, **changes}})))


def test_a_threshold_decides_and_asks_for_a_review(tiny_bundle: Path, tiny_images: Path) -> None:
    with_decision(tiny_bundle)
    paths = sorted(tiny_images.glob("*/*.png"))
    found = load(tiny_bundle).predict(paths)
    for one in found:
        bad = 1 - np.float64(np.float32(one.scores[1]))
        likeliest = "red" if one.scores[0] > one.scores[2] else "blue"
        assert one.label == ("green" if bad < 0.23 else likeliest)
        assert one.review == (0.23 <= bad < 0.885)
    assert {(one.label == "green", one.review) for one in found} >= {(True, False), (False, True), (False, False)}


def test_a_stale_threshold_is_refused(tiny_bundle: Path) -> None:
    with_decision(tiny_bundle, model="0" * 64)
    with pytest.raises(IntegrityError, match=r"thresholds were fitted through another model than model\.onnx"):
        load(tiny_bundle)


@pytest.mark.parametrize("source", [np.zeros((0, 5, 3), np.uint8), np.zeros((4, 0, 3), np.uint8), bytearray(b"x"), [1]])
def test_an_empty_crop_or_a_thing_of_another_kind_is_refused(tiny_bundle: Path, source: Any) -> None:  # noqa: ANN401 - anything
    with pytest.raises(DataError, match="image 0"):
        load(tiny_bundle).predict([source])


def test_half_a_character_is_no_text(text_bundle: Path) -> None:
    with pytest.raises(DataError, match="not UTF-8"):
        load(text_bundle).predict(["caf\udce9"])

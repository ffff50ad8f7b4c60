from pathlib import Path

import onnx
import pytest

from edgeft.core.errors import EdgeftError
from edgeft.graph.load import load
from edgeft.graph.save import save
from edgeft.graph.taps import with_outputs
from edgeft.testing.exporter_cases import classifier


def test_saved_models_load_again_and_have_the_size_that_was_returned(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    size = save(classifier(), path)
    assert path.stat().st_size == size
    assert load(path) == classifier()


def test_equal_models_have_equal_bytes(tmp_path: Path) -> None:
    save(classifier(), tmp_path / "a.onnx")
    save(onnx.ModelProto.FromString((tmp_path / "a.onnx").read_bytes()), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_external_data_is_refused(tmp_path: Path) -> None:
    model = classifier()
    model.graph.initializer[2].data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(EdgeftError, match=r"'conv\.weight' and 0 more lie outside"):
        save(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_models_above_two_gigabytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeft.graph.save.MAX_BYTES", 100)
    with pytest.raises(EdgeftError, match=r"model\.onnx would have .* GB; one ONNX file holds 2 GB"):
        save(classifier(), tmp_path / "model.onnx")


def test_taps_come_after_the_outputs_and_leave_the_model_alone() -> None:
    model = classifier()
    tapped = with_outputs(model, ["logits", "scores", "relu"])
    assert [value.name for value in tapped.graph.output] == ["scores", "logits", "relu"]
    assert model == classifier()


def test_an_unknown_tap_suggests_the_nearest() -> None:
    with pytest.raises(EdgeftError, match="no tensor 'logit'") as caught:
        with_outputs(classifier(), ["logit"])
    assert caught.value.hint == "nearest: logits"

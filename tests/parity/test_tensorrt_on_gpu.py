"""TensorRT itself, where it and a GPU are at hand: the engine of an int8 graph answers as onnxruntime on that graph."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeft.graph.execute import open_session
from edgeft.quantize.static import quantize_static, static_method
from edgeft.testing.exporter_graphs import WIDE, classifier, images
from edgeft_exporters.tensorrt import TensorRtExporter
from edgeft_exporters.tensorrt.options import EngineOptions
from edgeft_exporters.tensorrt.placement import PLACEMENT
from edgeft_exporters.tensorrt.present import lacking

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(lacking() is not None, reason=f"no engine runs here: {lacking()}")]


@pytest.fixture
def lowered(tmp_path: Path) -> Path:
    made = quantize_static(classifier(WIDE), PLACEMENT, images(32), static_method("minmax", 32)).model
    onnx.save(made, tmp_path / "int8.onnx")
    return TensorRtExporter().lower(tmp_path / "int8.onnx", tmp_path / "out")[0]


def test_an_engine_answers_as_onnxruntime(lowered: Path) -> None:
    run, reference = TensorRtExporter().session(lowered, 1), open_session(onnx.load(lowered), 1)
    for count in (1, 3, 8):
        pixels = images(count)
        expected = reference.run(None, {"pixels": pixels})[0]
        # One step of an 8-bit integer may fall on the other side of a tie, and sums are float16 in another order.
        np.testing.assert_allclose(run({"pixels": pixels})[0], expected, atol=2e-2)


def test_a_saved_engine_and_its_timings_are_used_again(lowered: Path, tmp_path: Path) -> None:
    from edgeft_exporters.tensorrt.engine import build

    options = EngineOptions(workspace_bytes=1 << 28, timing_cache=tmp_path / "timing.cache", largest_batch=2)
    (tmp_path / "model.engine").write_bytes(build(lowered, options).data)
    size = options.timing_cache.stat().st_size if options.timing_cache else 0
    assert size > 0
    run = TensorRtExporter().session(tmp_path / "model.engine", 1)
    assert np.shape(run({"pixels": images(2)})) == (1, 2, 3)
    assert not [note for note in build(lowered, options).notes if "another device" in note]


def test_the_device_is_known() -> None:
    facts = TensorRtExporter().fingerprint()
    assert facts["runtime"] == "tensorrt"
    assert facts["gpu"]

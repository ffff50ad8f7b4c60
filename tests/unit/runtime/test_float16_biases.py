"""A graph lowered for TensorRT has float16 biases, of which onnxruntime's optimiser would make other ones."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeft.quantize.calibration import Execution
from edgeft.quantize.static import quantize_static, static_method
from edgeft.runtime.session import Model
from edgeft_exporters.tensorrt import TensorRtExporter


def test_a_lowered_graph_with_small_weights_answers_as_onnx_defines_it(
    residual: onnx.ModelProto, tmp_path: Path
) -> None:
    net = onnx.ModelProto()
    net.CopyFrom(residual)
    for tensor in net.graph.initializer:
        if tensor.name.endswith(".w"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(0.01), tensor.name))
    x = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    exporter = TensorRtExporter()
    made = quantize_static(net, exporter.placement, x, static_method("gptq", 4, 0.0), execution=Execution(1))
    onnx.save(made.model, tmp_path / "net.onnx")
    file, *_ = exporter.lower(tmp_path / "net.onnx", tmp_path / "lowered")
    (expected,) = ReferenceEvaluator(onnx.load(file)).run(None, {"pixels": x})
    np.testing.assert_allclose(Model.open(file).scores({"pixels": x}), expected, atol=2e-3)

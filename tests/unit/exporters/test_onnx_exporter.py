import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeft.core.errors import DeviceError, EdgeftError, IntegrityError
from edgeft.testing.exporter_cases import ExporterCase, cases, classifier
from edgeft_exporters.onnx import OnnxExporter
from edgeft_exporters.processor import processor


@pytest.mark.parametrize("case", cases(OnnxExporter()), ids=lambda case: case.name)
def test_passes_the_exam(case: ExporterCase, tmp_path: Path) -> None:
    case.check(OnnxExporter(), tmp_path)


def test_lowered_file_has_the_bytes_of_the_graph(tmp_path: Path) -> None:
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(classifier().SerializeToString())
    (file,) = OnnxExporter().lower(graph, tmp_path / "onnx")
    assert file.name == "model.onnx"
    assert file.read_bytes() == graph.read_bytes()


def test_a_graph_that_the_runtime_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    model = classifier()
    model.graph.node[2].op_type = "NoSuchOperator"
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(model.SerializeToString())
    with pytest.raises(EdgeftError, match="NoSuchOperator"):
        OnnxExporter().lower(graph, tmp_path / "onnx")
    assert list((tmp_path / "onnx").iterdir()) == []


def test_session_needs_a_thread(tmp_path: Path) -> None:
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(classifier().SerializeToString())
    with pytest.raises(DeviceError, match="0 threads"):
        OnnxExporter().session(graph, 0)


def test_session_refuses_external_data_before_it_is_read(tmp_path: Path) -> None:
    graph = tmp_path / "graph.onnx"
    onnx.save(classifier(), graph, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(IntegrityError, match="another file"):
        OnnxExporter().session(graph, 1)


def test_session_of_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"absent\.onnx"):
        OnnxExporter().session(tmp_path / "absent.onnx", 1)


def test_session_keeps_the_order_of_outputs(tmp_path: Path) -> None:
    model = classifier()
    model.graph.output.insert(0, onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 3]))
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(model.SerializeToString())
    logits, scores = OnnxExporter().session(graph, 1)({"pixels": np.zeros((2, 8, 8, 3), np.uint8)})
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)  # a softmax in float32
    assert (logits.argmax(axis=1) == scores.argmax(axis=1)).all()


def test_fingerprint_reads_vnni_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor : 0\nmodel name : Some CPU @ 2 GHz\nflags : fpu avx2 avx512_vnni zzz\n\nprocessor : 1\n"
    )
    facts = processor(cpuinfo)
    assert facts["cpu"] == "Some CPU @ 2 GHz"
    assert facts["isa"] == ["avx2", "avx512_vnni"]


def test_fingerprint_reads_arm_features(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n")
    assert processor(cpuinfo)["isa"] == ["asimd", "asimddp", "i8mm"]


def test_fingerprint_without_cpuinfo_still_names_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    from edgeft_exporters import processor as module

    monkeypatch.setitem(module.processor.__kwdefaults__ or {}, "cpuinfo", tmp_path / "absent")
    monkeypatch.setattr(module.processor, "__defaults__", (tmp_path / "absent",))
    facts = OnnxExporter().fingerprint()
    assert facts["version"] == onnxruntime.__version__
    assert facts["isa"] == []


def test_the_exporter_is_light_to_import() -> None:
    code = (
        "import json, sys\n"
        "from edgeft_exporters.onnx import OnnxExporter\n"
        "OnnxExporter().placement\n"
        "print(json.dumps(sorted({'onnx', 'onnxruntime', 'numpy', 'torch', 'onnx_ir'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_profile_knows_the_copies_that_the_runtime_makes_of_a_dequantizer(tmp_path: Path) -> None:
    """HardSwish runs as two operators that read one DequantizeLinear, of which onnxruntime makes a copy."""
    node = onnx.helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "Q"),
        node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], "DQ"),
        node("HardSwish", ["dq"], ["y"], "swish"),
    ]
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in ("x", "y"))
    constants = [
        onnx.numpy_helper.from_array(np.asarray(0.1, np.float32), "scale"),
        onnx.numpy_helper.from_array(np.asarray(128, np.uint8), "zero"),
    ]
    graph = onnx.helper.make_graph(nodes, "copies", [x], [y], constants)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    spent = OnnxExporter().profile(tmp_path / "model.onnx", 1, {"x": np.zeros((1, 4), np.float32)})
    assert set(spent) == {"q", "dq", "y"}

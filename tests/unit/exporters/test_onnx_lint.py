from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeft.core.errors import DataError
from edgeft.core.exporter import LintFinding
from edgeft.testing.exporter_cases import classifier
from edgeft_exporters.onnx import OnnxExporter

_WIDE = ("wide.s", np.float32(0.05), "wide.z", np.uint8(100))
_RELU = ("relu.s", np.float32(0.02), "relu.z", np.uint8(0))


class Net:
    """A deployment graph built operator by operator, with Q/DQ pairs where a test puts them."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.constant("pixels.scale", np.float32(1 / 128))
        self.constant("pixels.zero_point", np.uint8(127))
        self.add("Transpose", ["pixels"], "image", perm=[0, 3, 1, 2])
        self.add("DequantizeLinear", ["image", "pixels.scale", "pixels.zero_point"], "x")

    def constant(self, name: str, array: np.ndarray | np.generic) -> str:
        self.arrays[name] = np.asarray(array)
        return name

    def add(self, op_type: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [output], output, **attributes))
        return output

    def pair(self, tensor: str, parameters: tuple[str, np.float32, str, np.uint8] = _WIDE) -> str:
        scale, zero_point = self.constant(*parameters[:2]), self.constant(*parameters[2:])
        self.add("QuantizeLinear", [tensor, scale, zero_point], f"{tensor}.q")
        return self.add("DequantizeLinear", [f"{tensor}.q", scale, zero_point], f"{tensor}.dq")

    def conv(self, x: str, name: str, channels: int, *, integer: bool = True) -> str:
        shape = (4, channels, 3, 3)
        if not integer:
            self.constant(f"{name}.w", np.full(shape, 0.1, np.float32))
            return self.add("Conv", [x, f"{name}.w"], name, pads=[1, 1, 1, 1])
        self.constant(f"{name}.w", np.ones(shape, np.int8))
        self.constant(f"{name}.ws", np.full(4, 0.01, np.float32))
        self.constant(f"{name}.wz", np.zeros(4, np.int8))
        self.add("DequantizeLinear", [f"{name}.w", f"{name}.ws", f"{name}.wz"], f"{name}.wd", axis=0)
        return self.add("Conv", [x, f"{name}.wd"], name, pads=[1, 1, 1, 1])

    def lint(self, last: str, folder: Path, *more: onnx.ValueInfoProto) -> dict[str, LintFinding]:
        """Return node -> finding of the net that ends with `last` [N, 4, 8, 8] pooled to scores; `more` are inputs."""
        pooled = self.pair(self.add("GlobalAveragePool", [last], "pool"))
        self.add("Flatten", [pooled], "logits")
        self.add("Softmax", ["logits"], "scores", axis=1)
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 8, 8, 3]), *more],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4])],
            [numpy_helper.from_array(array, name) for name, array in self.arrays.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        path = folder / "model.onnx"
        onnx.save(model, path)
        return {finding.node: finding for finding in OnnxExporter().lint(path)}


def test_a_fused_graph_has_only_expected_findings(tmp_path: Path) -> None:
    net = Net()
    first = net.pair(net.add("Relu", [net.conv("x", "c1", 3)], "r1"), _RELU)
    second = net.pair(net.conv(first, "c2", 4))
    found = net.lint(net.pair(net.add("Add", [first, second], "sum")), tmp_path)
    assert "scores" in found
    assert all(finding.expected for finding in found.values()), found
    assert "logits" in found["scores"].reason
    assert not {"c1", "c2", "sum"} & set(found)


def test_hardswish_is_named_with_its_reason_and_mend(tmp_path: Path) -> None:
    net = Net()
    first = net.pair(net.conv("x", "c1", 3))
    found = net.lint(net.pair(net.conv(net.pair(net.add("HardSwish", [first], "swish")), "c2", 4)), tmp_path)
    assert "no integer kernel" in found["swish"].reason
    assert "integer Add and Mul" in found["swish"].mend
    assert not found["swish"].expected
    strays = [finding for finding in found.values() if finding.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert any("swish" in finding.reason for finding in strays)


def test_a_relu_that_the_q_does_not_replace_is_the_cause(tmp_path: Path) -> None:
    net = Net()
    found = net.lint(net.pair(net.add("Relu", [net.conv("x", "c1", 3)], "r1"), _WIDE), tmp_path)
    assert found["c1"].op_type == "Conv"
    assert "Relu 'r1' stays between it and its Q" in found["c1"].reason
    assert not found["c1"].expected


def test_a_float_reader_beside_the_q_is_the_cause(tmp_path: Path) -> None:
    net = Net()
    conv = net.conv("x", "c1", 3)
    quantized = net.pair(conv)
    found = net.lint(net.add("Max", [conv, quantized], "max"), tmp_path)
    assert "Max 'max' reads its output in float" in found["c1"].reason
    assert "the weight" not in found["c1"].reason
    assert "no integer kernel for Max" in found["max"].reason


def test_a_second_q_is_the_cause(tmp_path: Path) -> None:
    net = Net()
    conv = net.conv("x", "c1", 3)
    first = net.pair(conv)
    net.nodes.append(helper.make_node("QuantizeLinear", [conv, "relu.s", "relu.z"], ["second.q"], "second.q"))
    net.constant(*_RELU[:2])
    net.constant(*_RELU[2:])
    second = net.add("DequantizeLinear", ["second.q", "relu.s", "relu.z"], "second.dq")
    found = net.lint(net.pair(net.add("Add", [first, second], "sum")), tmp_path)
    assert "2 QuantizeLinear follow it" in found["c1"].reason


def test_a_float_weight_without_a_q_behind_is_the_cause(tmp_path: Path) -> None:
    net = Net()
    net.constant("g.w", np.full((4, 4), 0.1, np.float32))
    net.constant("shape", np.array([-1, 4, 1, 1]))
    pooled = net.pair(net.add("GlobalMaxPool", [net.pair(net.conv("x", "c1", 3))], "max"))
    flat = net.pair(net.add("Flatten", [pooled], "flat"))
    found = net.lint(net.add("Reshape", [net.add("Gemm", [flat, "g.w"], "g"), "shape"], "r"), tmp_path)
    assert found["g"].reason == "its weight is float: compress left it in float"


def test_a_move_without_its_own_pair_is_the_cause(tmp_path: Path) -> None:
    net = Net()
    turned = net.add("Transpose", [net.pair(net.conv("x", "c1", 3))], "turned", perm=[0, 1, 3, 2])
    found = net.lint(net.add("Abs", [net.conv(turned, "c2", 4)], "abs"), tmp_path)
    assert "Transpose 'turned', which is in float" in found["c2"].reason


def test_a_layer_left_in_float_on_purpose_is_expected(tmp_path: Path) -> None:
    net = Net()
    shifted = net.add("Sqrt", [net.add("Abs", ["x"], "abs")], "root")
    plain = net.conv(shifted, "c1", 3, integer=False)
    found = net.lint(net.pair(net.conv(net.pair(plain), "c2", 4)), tmp_path)
    assert found["c1"].expected
    assert "left it in float" in found["c1"].reason
    assert "c2" not in found


def test_an_input_from_a_float_operator_is_the_cause(tmp_path: Path) -> None:
    net = Net()
    plain = net.add("Abs", ["x"], "abs")
    found = net.lint(net.pair(net.conv(plain, "c1", 3)), tmp_path)
    assert "its input 'abs' comes from Abs 'abs'" in found["c1"].reason
    weight = [finding for finding in found.values() if "a constant is dequantized on every run" in finding.reason]
    assert weight


def test_a_float_graph_is_one_expected_finding(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(classifier(), path)
    (finding,) = OnnxExporter().lint(path)
    assert finding.expected
    assert "float32 was chosen" in finding.reason


def test_lint_of_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.onnx"):
        OnnxExporter().lint(tmp_path / "absent.onnx")


def test_lint_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    net = Net()
    net.lint(net.pair(net.conv("x", "c1", 3)), tmp_path)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_nodes_without_names_are_found_again(tmp_path: Path) -> None:
    net = Net()
    first = net.pair(net.conv("x", "c1", 3))
    quantized = net.pair(net.add("HardSwish", [first], "swish"))
    for node in net.nodes:
        node.name = ""
    found = net.lint(net.pair(net.conv(quantized, "c2", 4)), tmp_path)
    assert [finding.op_type for finding in found.values() if "no integer kernel" in finding.reason] == ["HardSwish"]


def test_what_prepares_a_mask_is_not_said_to_normalise_pixels(tmp_path: Path) -> None:
    net = Net()
    net.add("Cast", ["attention_mask"], "there", to=TensorProto.FLOAT)
    net.add("Sub", [net.constant("one", np.float32(1)), "there"], "padding")
    net.add("Mul", ["padding", net.constant("least", np.float32(-1e4))], "bias")
    rows = net.conv(net.pair("x"), "c1", 3)
    net.add("Add", [rows, "bias"], "masked")
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["N", 1, 1, 8])
    found = net.lint(net.pair("masked"), tmp_path, mask)
    for name in ("there", "padding", "bias"):
        assert found[name].reason == "it prepares 'attention_mask', before anything is quantized"
        assert found[name].expected

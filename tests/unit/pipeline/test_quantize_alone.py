"""`edgeft quantize` from model and data to the written folder: what ships, what is said, what is left behind."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeft.core.errors import DataError, UsageError
from edgeft.pipeline.quantize import FILES, Request, quantize
from edgeft.quantize.affine import QuantizationError
from edgeft.runtime import abba
from edgeft.runtime.worker import Request as Timed
from edgeft.runtime.worker import Timing

Machine = Callable[..., list[Timed]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes every timing process answer with its candidate's simulated latency."""

    def use(**levels: float) -> list[Timed]:
        rng, asked = np.random.default_rng(0), []

        def launch(request: Timed) -> Timing:
            asked.append(request)
            level = levels[Path(request.model).parent.name] * np.exp(rng.normal(0, 0.01))
            return Timing(1.0, 1.0, [level] * request.samples, 1, 1)

        monkeypatch.setitem(abba.compare.__kwdefaults__, "run", launch)
        return asked

    return use


@pytest.fixture
def request_(tmp_path: Path, make_foreign: Callable[..., Any], rows_of: Callable[..., Any]) -> Request:
    """A labelled task whose inputs are decided clearly."""
    model = make_foreign(opset=13)
    onnx.save(model, tmp_path / "net.onnx")
    x, _ = rows_of(model, 48)
    np.savez(tmp_path / "calib.npz", x=x)
    x, labels = rows_of(model, 400, seed=1)
    np.savez(tmp_path / "eval.npz", x=x, labels=labels)
    return Request(
        tmp_path / "net.onnx",
        tmp_path / "calib.npz",
        tmp_path / "eval.npz",
        tmp_path / "out",
        images=32,
        max_drop_pp=2.0,
    )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def by_name(record: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item for item in record["candidates"]["candidates"]}


def test_int8_that_is_faster_and_holds_the_margin_ships(request_: Request, machine: Machine) -> None:
    asked = machine(fp32=10.0, int8=6.0)
    record = quantize(request_)
    out = request_.out
    assert (record["status"], record["exit_code"]) == ("passed", 0)
    assert record["choice"]["chosen"] == "int8"
    assert "holds the margin of 2 pp accuracy" in record["verdict"]
    assert names(out) == FILES - {"lowered"}
    assert record["files"] == ["model.onnx"]
    assert json.loads((out / "report.json").read_text()) == record
    assert (out / "model.onnx").read_bytes() == (out / "candidates" / "int8" / "model.onnx").read_bytes()
    assert [gate["verdict"] for gate in record["gates"]] == ["PASS", "PASS"]
    assert "chosen among" not in record["gates"][0]["detail"]  # the first rung held the margin
    found = by_name(record)
    assert found["fp32"]["validation"]["value"] == 1.0  # the labels are the float model's decisions
    assert found["int8"]["validation"]["n"] == 400
    assert found["int8"]["validation"]["agreement"] > 0.99
    assert found["int8"]["validation"]["sqnr_db"] > 15
    assert found["int8"]["unsafe_pairs"] == 0
    assert found["int8"]["temperature"] is None
    assert record["source"]["opset"] == 13
    assert record["calibration"]["n"] == 32
    assert len(asked) == 36
    kinds = {node.op_type for node in onnx.load(out / "model.onnx").graph.node}
    assert "QuantizeLinear" in kinds


def test_the_last_layer_is_an_integer_one_with_float_outputs(request_: Request) -> None:
    record = quantize(dataclasses.replace(request_, latency=False))
    graph = onnx.load(request_.out / "candidates" / "int8" / "model.onnx").graph
    last = next(node for node in graph.node if "classes" in node.output)
    producers = {output: node.op_type for node in graph.node for output in node.output}
    assert (last.op_type, producers[last.input[0]], producers[last.input[1]]) == ("Gemm", *["DequantizeLinear"] * 2)
    assert [item for item in record["lint"] if not item["expected"]] == []


def test_a_weight_called_temperature_is_left_as_it_is(request_: Request) -> None:
    given = onnx.load(request_.model)
    (weight,) = (tensor for tensor in given.graph.initializer if tensor.name == "fc")
    expected = numpy_helper.to_array(weight)
    for node in given.graph.node:
        node.input[:] = ["temperature" if name == weight.name else name for name in node.input]
    weight.name = "temperature"
    onnx.save(given, request_.model)
    record = quantize(dataclasses.replace(request_, latency=False))
    found = onnx.load(request_.out / "candidates" / "fp32" / "model.onnx").graph.initializer
    (kept,) = (numpy_helper.to_array(tensor) for tensor in found if tensor.name == "temperature")
    assert np.array_equal(kept, expected)
    assert [item["temperature"] for item in by_name(record).values()] == [None, None]
    assert by_name(record)["int8"]["validation"]["agreement"] > 0.99


@pytest.mark.parametrize(("int8", "code", "status"), [(14.0, 6, "failed"), (10.0, 0, "inconclusive")])
def test_int8_that_is_not_faster_does_not_ship(
    request_: Request, machine: Machine, int8: float, code: int, status: str
) -> None:
    machine(fp32=10.0, int8=int8)
    record = quantize(request_)
    assert (record["status"], record["exit_code"], record["choice"]["chosen"]) == (status, code, "fp32")
    assert "nothing that holds the margin" in record["verdict"]
    float_ops = {node.op_type for node in onnx.load(request_.out / "model.onnx").graph.node}
    assert "QuantizeLinear" not in float_ops


def test_undecided_is_an_error_under_strict(request_: Request, machine: Machine) -> None:
    machine(fp32=10.0, int8=10.0)
    assert quantize(dataclasses.replace(request_, strict=True))["exit_code"] == 7


def test_int8_that_loses_too_much_does_not_ship(request_: Request, tmp_path: Path) -> None:
    with np.load(tmp_path / "eval.npz") as held:
        x, labels = held["x"], held["labels"]
    np.savez(tmp_path / "calib.npz", x=x[:32] - 200)  # ranges that clip everything real
    np.savez(tmp_path / "eval.npz", x=x, labels=labels)
    record = quantize(dataclasses.replace(request_, method="gptq", latency=False))
    assert (record["status"], record["exit_code"], record["choice"]["chosen"]) == ("failed", 5, "fp32")
    assert "no other candidate holds the margin of 2 pp accuracy" in record["verdict"]
    assert record["gates"][0]["name"] == "accuracy int8"


def test_labels_in_another_order_are_suspected(request_: Request, tmp_path: Path) -> None:
    with np.load(tmp_path / "eval.npz") as held:
        np.savez(tmp_path / "wrong.npz", x=held["x"], labels=(held["labels"] + 1) % 3)
    record = quantize(dataclasses.replace(request_, evaluation=tmp_path / "wrong.npz", latency=False))
    assert any("0.0% of" in note and "no better than chance" in note for note in record["notes"])


def test_a_margin_that_the_data_cannot_certify_is_inconclusive(request_: Request) -> None:
    record = quantize(dataclasses.replace(request_, latency=False, max_drop_pp=0.1))
    assert (record["status"], record["exit_code"], record["choice"]["chosen"]) == ("inconclusive", 0, "fp32")
    assert "would certify 0.1 pp" in record["gates"][0]["detail"]


@pytest.mark.parametrize("given", ["none", "unlabelled"])
def test_without_labels_accuracy_is_said_to_be_unmeasured(request_: Request, machine: Machine, given: str) -> None:
    machine(fp32=10.0, int8=6.0)
    evaluation = None if given == "none" else request_.calibration
    record = quantize(dataclasses.replace(request_, evaluation=evaluation))
    assert (record["status"], record["exit_code"], record["choice"]["chosen"]) == ("inconclusive", 0, "int8")
    assert "accuracy was not measured" in record["verdict"]
    assert [gate["name"] for gate in record["gates"]] == ["latency int8 vs_fp32"]
    block = by_name(record)["int8"]["validation"]
    assert set(block) == {"n", "agreement", "mean_abs_logit_error", "sqnr_db"}
    assert record["evaluation"]["held_out"] is (given == "unlabelled")


def test_labels_of_calibration_data_judge_nothing(request_: Request) -> None:
    labelled = dataclasses.replace(request_, calibration=request_.evaluation, evaluation=None, latency=False)
    record = quantize(labelled)
    assert record["calibration"]["labelled"] is True
    assert record["gates"] == []
    assert record["status"] == "inconclusive"


def test_without_timing_the_smallest_may_ship_and_the_report_has_no_latency(request_: Request) -> None:
    record = quantize(dataclasses.replace(request_, latency=False))
    sizes = {name: item["size_bytes"] for name, item in by_name(record).items()}
    assert record["choice"]["chosen"] == min(sizes, key=lambda name: sizes[name])
    assert "latency" not in record
    page = (request_.out / "report.html").read_text()
    assert 'id="latency"' not in page
    assert 'id="candidates"' in page


@pytest.fixture
def kept(request_: Request) -> Iterator[bytes]:
    """What an earlier run left, which a failing run must not touch."""
    request_.out.mkdir()
    (request_.out / "model.onnx").write_bytes(b"earlier")
    yield b"earlier"
    assert (request_.out / "model.onnx").read_bytes() == b"earlier"
    assert [path.name for path in request_.out.parent.iterdir() if path.name.startswith(".")] == []


def test_a_run_that_fails_leaves_what_was_there(request_: Request, kept: bytes) -> None:
    del kept
    with pytest.raises(DataError, match=r"gone\.npz"):
        quantize(dataclasses.replace(request_, calibration=request_.out.parent / "gone.npz"))


def test_activations_that_are_not_finite_are_refused(request_: Request, kept: bytes) -> None:
    del kept
    x = np.full((4, 3, 8, 8), np.nan, np.float32)
    np.savez(request_.calibration, x=x)
    with pytest.raises(DataError, match="NaN or Inf"):
        quantize(request_)


def test_an_earlier_result_is_replaced_and_strangers_are_not(request_: Request) -> None:
    request_.out.mkdir()
    (request_.out / "model.onnx").write_bytes(b"earlier")
    quantize(dataclasses.replace(request_, latency=False))
    assert names(request_.out) == FILES - {"lowered"}
    (request_.out / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        quantize(request_)


def test_other_usage_errors(request_: Request) -> None:
    with pytest.raises(UsageError, match="no exporter is called 'onx'") as caught:
        quantize(dataclasses.replace(request_, target="onx"))
    assert "'onnx'" in str(caught.value.hint)
    with pytest.raises(UsageError, match="--mean and --std go together"):
        quantize(dataclasses.replace(request_, mean=(1.0,)))
    with pytest.raises(UsageError, match="--mean has 2 numbers"):
        quantize(dataclasses.replace(request_, mean=(1.0, 2.0), std=(1.0,)))
    with pytest.raises(UsageError, match="--std 0"):
        quantize(dataclasses.replace(request_, mean=(1.0,), std=(0.0,)))


def test_a_text_encoder_with_two_inputs_is_quantized_dynamically(request_: Request, tmp_path: Path) -> None:
    words, width, length = 20, 16, 6
    rng = np.random.default_rng(0)
    arrays = {
        "table": rng.normal(size=(words, width)),
        "w": rng.normal(size=(width, width)),
        "head": rng.normal(size=(width, 3)),
    }
    node = onnx.helper.make_node
    nodes = [
        node("Gather", ["table", "ids"], ["words"], "words"),
        node("MatMul", ["words", "w"], ["mixed"], "mixed"),
        node("Cast", ["mask"], ["share"], "share", to=onnx.TensorProto.FLOAT),
        node("Unsqueeze", ["share", "last"], ["column"], "column"),
        node("Mul", ["mixed", "column"], ["kept"], "kept"),
        node("ReduceSum", ["kept", "middle"], ["summed"], "summed", keepdims=0),
        node("MatMul", ["summed", "head"], ["classes"], "classes"),
    ]
    taken = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["N", "L"]) for name in ("ids", "mask")]
    given = onnx.helper.make_tensor_value_info("classes", onnx.TensorProto.FLOAT, ["N", 3])
    constants = [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    constants += [onnx.numpy_helper.from_array(np.array([axis]), name) for name, axis in (("last", 2), ("middle", 1))]
    graph = onnx.helper.make_graph(nodes, "text", taken, [given], constants)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8),
        tmp_path / "text.onnx",
    )
    for name, count in (("calib", 32), ("eval", 200)):
        ids = rng.integers(0, words, (count, length))
        mask = (np.arange(length) < rng.integers(1, length + 1, (count, 1))).astype(np.int64)
        scores = (((arrays["table"] @ arrays["w"])[ids] * mask[..., None]).sum(axis=1)) @ arrays["head"]
        np.savez(tmp_path / f"{name}.npz", ids=ids, mask=mask, labels=scores.argmax(axis=1))
    text = dataclasses.replace(request_, model=tmp_path / "text.onnx", latency=False)
    record = quantize(text)
    int8 = by_name(record)["int8"]
    assert int8["method"].startswith("dynamic")
    assert int8["validation"]["value"] > 0.97
    assert int8["unsafe_pairs"] == 0
    assert record["source"]["input"] == "'ids': int64 [N, ?]; 'mask': int64 [N, ?]"
    kinds = [node.op_type for node in onnx.load(text.out / "candidates" / "int8" / "model.onnx").graph.node]
    assert kinds.count("MatMulInteger") == 2
    for precision, method, kind in (("int4", "auto", "weights_int4"), ("int8", "weight_only", "weights_int8")):
        record = quantize(dataclasses.replace(text, precision=precision, method=method))
        assert set(by_name(record)) == {"fp32", precision}
        assert by_name(record)[precision]["method"].startswith(kind)
        assert by_name(record)[precision]["unsafe_pairs"] is None
        assert record["gates"][0]["name"] == f"accuracy {precision}"
    record = quantize(dataclasses.replace(text, method="mse"))
    static = by_name(record)["int8"]
    assert static["method"].startswith("mse+pair_safe")
    assert static["validation"]["value"] > 0.97
    made = onnx.load(text.out / "candidates" / "int8" / "model.onnx").graph
    assert [value.name for value in made.input] == ["ids", "mask"]
    assert "MatMulInteger" not in {node.op_type for node in made.node}
    assert sum(node.op_type == "QuantizeLinear" for node in made.node) >= 2
    with pytest.raises(QuantizationError, match=r"2 inputs \(ids, mask\); this is for graphs with one"):
        quantize(dataclasses.replace(text, method="mse", swap_activations=True))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    with pytest.raises(UsageError, match="holds one array, but the model takes 2 inputs"):
        quantize(dataclasses.replace(text, calibration=tmp_path / "pictures"))


def test_fp16_is_judged_like_any_other(request_: Request, machine: Machine) -> None:
    machine(fp32=10.0, fp16=6.0)
    record = quantize(dataclasses.replace(request_, precision="fp16", max_drop_pp=5.0))
    assert record["status"] == "passed"
    assert record["choice"]["chosen"] == record["linted"] == "fp16"
    assert [gate["name"] for gate in record["gates"]] == ["accuracy fp16", "latency fp16 vs_fp32"]
    fp32, fp16 = by_name(record)["fp32"], by_name(record)["fp16"]
    assert fp16["size_bytes"] < fp32["size_bytes"]
    assert fp16["unsafe_pairs"] is None
    (finding,) = record["lint"]
    assert "float16 was chosen" in finding["reason"]


def test_a_model_of_batch_one_and_an_encoder_are_quantized(
    request_: Request, tmp_path: Path, make_foreign: Callable[..., Any]
) -> None:
    onnx.save(make_foreign(batch=1), tmp_path / "one.onnx")
    one = quantize(dataclasses.replace(request_, model=tmp_path / "one.onnx", latency=False))
    assert by_name(one)["int8"]["validation"]["agreement"] > 0.99
    model = make_foreign()
    del model.graph.node[-4:]  # up to the second Relu: feature maps come out
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("r2", onnx.TensorProto.FLOAT, ["N", 8, 8, 8]))
    onnx.save(model, tmp_path / "encoder.onnx")
    encoder = dataclasses.replace(request_, model=tmp_path / "encoder.onnx", latency=False)
    with pytest.raises(DataError, match=r"no \[N, classes\] to decide by"):
        quantize(encoder)
    labelled = np.load(request_.evaluation or "")
    np.savez(tmp_path / "both.npz", x=labelled["x"][:40], labels=labelled["labels"][:40])
    record = quantize(dataclasses.replace(encoder, evaluation=None, calibration=tmp_path / "both.npz"))
    block = by_name(record)["int8"]["validation"]
    assert block["agreement"] is None
    assert block["sqnr_db"] > 15


def test_a_model_of_batch_one_is_trained_one_by_one(
    request_: Request, tmp_path: Path, make_foreign: Callable[..., Any]
) -> None:
    onnx.save(make_foreign(batch=1), tmp_path / "one.onnx")
    record = quantize(
        dataclasses.replace(request_, model=tmp_path / "one.onnx", latency=False, method="qat", images=16)
    )
    assert by_name(record)["int8"]["method"].endswith("qat_120x1")
    assert "chosen among 2 on the same inputs, so the bound is optimistic" in record["gates"][0]["detail"]
    assert by_name(record)["int8"]["validation"]["agreement"] > 0.99


def test_one_output_decides_nothing(request_: Request, tmp_path: Path) -> None:
    weight = onnx.numpy_helper.from_array(np.ones((192, 1), np.float32), "w")
    nodes = [
        onnx.helper.make_node("Flatten", ["x"], ["f"]),
        onnx.helper.make_node("MatMul", ["f", "w"], ["logits"]),
    ]
    taken = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])
    given = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 1])
    graph = onnx.helper.make_graph(nodes, "g", [taken], [given], [weight])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "score.onnx")
    x = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=x, labels=np.zeros(8, np.int64))
    asked = dataclasses.replace(request_, model=tmp_path / "score.onnx", calibration=tmp_path / "rows.npz")
    with pytest.raises(DataError, match=r"no \[N, classes\] to decide by"):
        quantize(dataclasses.replace(asked, evaluation=tmp_path / "rows.npz", latency=False))


def test_a_target_with_a_runtime_of_its_own_is_judged_and_timed_in_it(request_: Request, machine: Machine) -> None:
    asked = machine(fp32=10.0, int8=6.0)
    record = quantize(dataclasses.replace(request_, target="openvino"))
    assert (record["status"], record["choice"]["chosen"]) == ("passed", "int8")
    assert {request.exporter for request in asked} == {"edgeft_exporters.openvino:OpenVinoExporter"}
    assert record["files"] == ["model.onnx", "lowered/model.onnx", "lowered/model.xml", "lowered/model.bin"]
    assert all((request_.out / file).is_file() for file in record["files"])
    biases = [node.input[2] for node in onnx.load(request_.out / "model.onnx").graph.node if node.op_type == "Conv"]
    assert biases
    assert not any("::q" in bias or "::dq" in bias for bias in biases)  # as its placement asks
    assert quantize(dataclasses.replace(request_, target="openvino"))["status"] == "passed"  # replaces what it wrote


def test_a_target_that_does_not_run_here_ships_unverified(
    request_: Request, machine: Machine, make_foreign: Callable[..., Any], rows_of: Callable[..., Any]
) -> None:
    asked = machine(fp32=10.0, int8=6.0)
    model = make_foreign(opset=13, width=16)
    onnx.save(model, request_.model)
    x, labels = rows_of(model, 400, seed=1)
    np.savez(request_.evaluation or "", x=x, labels=labels)
    record = quantize(dataclasses.replace(request_, target="tensorrt", strict=True))
    assert (record["status"], record["exit_code"], record["choice"]["chosen"]) == ("inconclusive", 7, "int8")
    assert not asked
    assert "unverified on hardware" in record["verdict"]
    assert [gate["name"] for gate in record["gates"]] == ["accuracy int8"]
    assert record["files"] == ["model.onnx", "lowered/model.onnx", "lowered/build_engine.sh"]


def test_an_unknown_target_is_told_before_the_work(request_: Request) -> None:
    with pytest.raises(UsageError, match="'openvin'") as error:
        quantize(dataclasses.replace(request_, target="openvin"))
    assert "openvino" in str(error.value.hint)

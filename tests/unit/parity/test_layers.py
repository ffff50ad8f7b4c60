"""Alignment of two graphs, layers run alone, and the smallest graph that shows a fault."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

from edgeft.cli.main import app
from edgeft.core.errors import DataError
from edgeft.parity.align import align
from edgeft.parity.forced import GIVEN, forced
from edgeft.parity.layers import compare, drift, scaled_alike
from edgeft.parity.told import attribute
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.equalise import kept_factors
from edgeft.quantize.rows import ArrayRows


def test_a_quantized_tensor_is_compared_as_its_readers_see_it(
    float_net: onnx.ModelProto, int8_net: onnx.ModelProto
) -> None:
    pairs = {pair.name: pair for pair in align(float_net, int8_net)}
    assert list(pairs) == ["real", "image", "r0", "r1", "r2", "pooled", "flat", "logits"]
    assert {name: pairs[name].seen for name in ("r1", "logits")} == {"r1": "r1::dq", "logits": "logits"}
    assert [(pairs[name].layer, pairs[name].op_type) for name in ("r0", "logits")] == [
        ("stem", "Conv"),
        ("classifier", "Gemm"),
    ]
    assert pairs["r1"].sources == ("r0",)
    assert [pairs[name].integer for name in ("real", "r1", "logits")] == [False, True, True]


def test_graphs_with_other_inputs_or_no_common_tensor_are_refused(float_net: onnx.ModelProto) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(float_net)
    other.graph.input[0].name = "images"
    with pytest.raises(DataError, match="pixels against images"):
        align(float_net, other)
    other.graph.input[0].name = "pixels"
    for node in other.graph.node:
        node.output[0] += "_renamed"
    del other.graph.output[:]
    with pytest.raises(DataError, match="share no tensor name"):
        align(float_net, other)


def test_a_layer_alone_computes_on_what_it_is_given(float_net: onnx.ModelProto) -> None:
    """All layers in one run, each with its own inputs: nothing flows from one to the next."""
    pairs = align(float_net, float_net)
    session = ort.InferenceSession(forced(float_net, pairs).SerializeToString())
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(1, 12)).astype(np.float32)
    feeds = {value.name: np.zeros(_sizes(value.name), np.float32) for value in session.get_inputs()[1:]}
    feeds |= {"pixels": np.zeros((1, 16, 16, 3), np.uint8), f"flat{GIVEN}": flat}
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in float_net.graph.initializer}
    (logits,) = session.run(["logits"], feeds)
    np.testing.assert_allclose(logits, flat @ weights["w3"].T + weights["b3"], rtol=1e-5, atol=1e-6)


def _sizes(name: str) -> tuple[int, ...]:
    side = {"real": (16, 16, 3), "image": (3, 16, 16), "r0": (8, 16, 16), "r1": (12, 16, 16), "r2": (12, 16, 16)}
    return (1, *{**side, "pooled": (12, 1, 1), "flat": (12,), "logits": (4,)}[name.removesuffix(GIVEN)])


def test_errors_pile_up_on_the_way_and_not_in_layers_alone(
    float_net: onnx.ModelProto, int8_net: onnx.ModelProto, rows: ArrayRows
) -> None:
    found = compare(float_net, int8_net, rows)
    by_name = {layer.pair.name: layer for layer in found.layers}
    assert found.n == len(rows)
    assert by_name["image"].drifted.sqnr_db == by_name["image"].alone.sqnr_db == float("inf")
    for name in ("r1", "r2"):
        assert 20 < by_name[name].alone.sqnr_db < 60
        assert by_name[name].drifted.sqnr_db <= by_name[name].alone.sqnr_db + 1


def test_a_tensor_that_differs_by_nothing_else_drifts_as_numpy_says(
    float_net: onnx.ModelProto, rows: ArrayRows, planted: Callable[..., onnx.ModelProto]
) -> None:
    def louder(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == "b3")
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + np.float32(0.5), "b3"))

    found = drift(float_net, planted(float_net, louder), rows, threads=2)
    assert found["flat"].sqnr_db == float("inf")
    assert found["logits"].offset == pytest.approx(0.5, abs=1e-5)
    assert found["logits"].affine_share == pytest.approx(1.0, abs=1e-4)


def test_an_equalised_graph_is_compared_with_a_float_graph_scaled_alike(
    float_net: onnx.ModelProto, int8_net: onnx.ModelProto, rows: ArrayRows
) -> None:
    """The factors travel in the model; scaled by them the float graph still gives what it gave."""
    factors = kept_factors(int8_net)
    assert set(factors) <= {"r0", "r1"}
    assert factors
    alike = scaled_alike(float_net, int8_net)
    feeds = rows[0:4]
    before, after = (
        ort.InferenceSession(model.SerializeToString()).run(["scores"], feeds)[0] for model in (float_net, alike)
    )
    np.testing.assert_allclose(before, after, atol=1e-5)
    with pytest.raises(QuantizationError, match="has no such tensor"):
        scaled_alike(_without_junctions(float_net), int8_net)


def _without_junctions(model: onnx.ModelProto) -> onnx.ModelProto:
    inferred = onnx.shape_inference.infer_shapes(model)
    part: onnx.ModelProto = onnx.utils.Extractor(inferred).extract_model(["pixels"], ["r0"])
    return part


def test_damaged_factors_are_refused(int8_net: onnx.ModelProto) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(int8_net)
    copy.metadata_props[0].value = "{"
    with pytest.raises(QuantizationError, match="damaged"):
        kept_factors(copy)


@pytest.fixture
def files(
    tmp_path: Path,
    float_net: onnx.ModelProto,
    int8_net: onnx.ModelProto,
    rows: ArrayRows,
    planted: Callable[..., onnx.ModelProto],
) -> Path:
    def double(model: onnx.ModelProto) -> None:
        for part in ("weight", "bias"):
            tensor = next(t for t in model.graph.initializer if t.name == f"c1::{part}::scale")
            tensor.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(tensor), tensor.name))

    onnx.save(float_net, tmp_path / "base.onnx")
    onnx.save(planted(int8_net, double), tmp_path / "new.onnx")
    np.save(tmp_path / "inputs.npy", rows.values)
    return tmp_path


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    return done.exit_code, done.stdout, done.stderr


def test_inspect_names_the_layer_and_writes_the_smallest_graph_that_shows_it(files: Path) -> None:
    code, said, _ = run(
        "inspect",
        files / "new.onnx",
        "--against",
        files / "base.onnx",
        "--input",
        files / "inputs.npy",
        "--bisect",
        files / "small",
        "--json",
    )
    assert code == 0
    found = json.loads(said)
    assert [(item["layer"], item["kind"]) for item in found["findings"]] == [("middle", "scale")]
    assert found["n"] == 12
    small = onnx.load(files / "small" / "reproducer.onnx")
    assert [
        node.op_type for node in small.graph.node if node.op_type not in {"DequantizeLinear", "QuantizeLinear"}
    ] in (
        ["Conv", "Relu"],
        ["Conv"],
    )
    with np.load(files / "small" / "inputs.npz") as stored:
        arrays = dict(stored)
    names = [value.name for value in small.graph.input]
    (got,) = ort.InferenceSession(small.SerializeToString()).run(None, {name: arrays[name] for name in names})
    np.testing.assert_allclose(got, arrays["found"], rtol=1e-4, atol=1e-4)
    assert np.abs(got - arrays["expected"]).mean() > 0.1


def test_inspect_tells_it_in_words(files: Path) -> None:
    code, said, _ = run(
        "inspect", files / "new.onnx", "--against", files / "base.onnx", "--input", files / "inputs.npy"
    )
    assert code == 0
    assert "middle: scale" in said
    assert "mend: quantize or export middle again" in said
    code, said, _ = run(
        "inspect", files / "base.onnx", "--against", files / "base.onnx", "--input", files / "inputs.npy"
    )
    assert code == 0
    assert "no layer is at fault" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("new.onnx", "--input", "inputs.npy"), "add --against"),
        (("new.onnx", "--against", "base.onnx"), "add --input DATA"),
        (("inputs.npy", "--against", "base.onnx", "--input", "inputs.npy"), "compares two .onnx files"),
        (("new.onnx", "--against", "base.onnx", "--input", "inputs.npy", "--bisect", "."), "is not empty"),
        (("new.onnx", "--against", "base.onnx", "--input", "inputs.npy", "--mean", "127"), "go together"),
    ],
)
def test_inspect_refuses_what_it_cannot_do(files: Path, arguments: tuple[str, ...], words: str) -> None:
    paths = [item if item.startswith("--") or item.isdigit() else str(files / item) for item in arguments]
    code, _, said = run("inspect", *paths)
    assert code == 2
    assert words in said


def test_a_build_records_the_layers_and_judges_none_where_activations_were_swapped(
    tmp_path: Path, float_net: onnx.ModelProto, int8_net: onnx.ModelProto, rows: ArrayRows
) -> None:
    files = {"base": float_net, "new": int8_net}
    for name, model in files.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
    found = attribute(tmp_path / "base.onnx", tmp_path / "new.onnx", rows, 1)
    assert (found["n"], found["findings"], found["judged"]) == (12, [], True)
    assert [layer["layer"] for layer in found["layers"]][-1] == "classifier"
    json.dumps(found, allow_nan=False)
    hard = onnx.ModelProto()
    hard.CopyFrom(float_net)
    next(node for node in hard.graph.node if node.name == "stem_act").op_type = "HardSwish"
    onnx.save(hard, tmp_path / "hard.onnx")
    swapped = attribute(tmp_path / "hard.onnx", tmp_path / "base.onnx", rows, 1)
    assert (swapped["findings"], swapped["judged"]) == ([], False)

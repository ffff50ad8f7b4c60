import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from pydantic import ValidationError

from edgeft.core.digest import sha256_tree
from edgeft.core.errors import DataError, IntegrityError, UsageError
from edgeft.core.stage import Context
from edgeft.data.answers import Answers
from edgeft.data.dataset import Dataset
from edgeft.quantize.affine import QuantizationError
from edgeft.quantize.calibration import Execution
from edgeft.quantize.candidates import Bar, judge, logits_of
from edgeft.quantize.config import CompressConfig
from edgeft.quantize.rows import ArrayRows
from edgeft.quantize.stage import calibration_rows, run


def compress(tmp_path: Path, net: onnx.ModelProto, data: Path, config: CompressConfig, name: str = "out") -> Path:
    graph = tmp_path / "graph"
    graph.mkdir(exist_ok=True)
    onnx.save(net, graph / "model.onnx")
    folder = tmp_path / name
    folder.mkdir()
    result = run(Context(folder, tmp_path / "work", 7, 1), {"graph": graph, "data": data}, config)
    assert result.folder == folder
    json.dumps(dict(result.measurements), allow_nan=False)
    return folder


def test_writes_both_candidates_with_their_numbers(tmp_path: Path, net: onnx.ModelProto, data_folder: Path) -> None:
    folder = compress(tmp_path, net, data_folder, CompressConfig(calib_images=32, bias_images=16, max_drop_pp=50))
    listing = json.loads((folder / "candidates.json").read_text())
    assert listing["schema"] == 1
    fp32, int8 = listing["candidates"]
    assert [c["name"] for c in (fp32, int8)] == ["fp32", "int8"]
    assert fp32["validation"]["drop_pp"] == 0
    assert fp32["validation"]["agreement"] == 1
    assert int8["validation"]["n"] == 30
    low, high = int8["validation"]["drop_interval_pp"]
    assert low <= int8["validation"]["drop_pp"] <= high
    assert (fp32["unsafe_pairs"], int8["unsafe_pairs"]) == (None, 0)
    assert int8["method"] == "equalised+mse+pair_safe+float_target+gptq+bias_correction"
    assert {skip["layer"] for skip in int8["skipped"]} == {"scaled", "scores"}
    for candidate in (fp32, int8):
        file = folder / candidate["file"]
        assert file.stat().st_size == candidate["size_bytes"]
        stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer}
        assert stored["temperature"] == np.float32(candidate["temperature"])


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, net: onnx.ModelProto, data_folder: Path) -> None:
    config = CompressConfig(calib_images=16, bias_images=8)
    first = compress(tmp_path, net, data_folder, config, "one")
    second = compress(tmp_path, net, data_folder, config, "two")
    assert sha256_tree(first) == sha256_tree(second)


def test_fp32_alone_needs_no_calibration(tmp_path: Path, net: onnx.ModelProto, data_folder: Path) -> None:
    folder = compress(tmp_path, net, data_folder, CompressConfig(precision="fp32"))
    listing = json.loads((folder / "candidates.json").read_text())
    assert [c["name"] for c in listing["candidates"]] == ["fp32"]
    assert not (folder / "candidates" / "int8").exists()


def test_the_test_split_is_never_read(tmp_path: Path, net: onnx.ModelProto, data_folder: Path) -> None:
    config = CompressConfig(calib_images=64, bias_images=8)
    first = compress(tmp_path, net, data_folder, config, "one")
    pixels = np.load(data_folder / "pixels.npy")
    pixels[90:] = 0
    np.save(data_folder / "pixels.npy", pixels)
    second = compress(tmp_path, net, data_folder, config, "two")
    assert sha256_tree(first) == sha256_tree(second)


def test_calibration_images_are_drawn_from_train_alone(data_folder: Path) -> None:
    data = Dataset.open(data_folder)
    drawn = calibration_rows(data, 20, seed=3)[:]["pixels"]
    train = {image.tobytes() for image in data.pixels[:60]}
    assert len(drawn) == len({image.tobytes() for image in drawn} & train) == 20
    np.testing.assert_array_equal(calibration_rows(data, 20, seed=3)[:]["pixels"], drawn)
    assert len(calibration_rows(data, 500, seed=3)) == 60


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_named(tmp_path: Path, net: onnx.ModelProto, data_folder: Path, split: str) -> None:
    rows = data_folder / "rows.jsonl"
    rows.write_text(rows.read_text().replace(f'"split": "{split}"', '"split": "test"'))
    with pytest.raises(DataError, match="no training rows" if split == "train" else "no validation rows"):
        compress(tmp_path, net, data_folder, CompressConfig())


def test_a_few_images_are_said_to_be_few(tmp_path: Path, net: onnx.ModelProto, data_folder: Path) -> None:
    graph = tmp_path / "graph"
    graph.mkdir()
    onnx.save(net, graph / "model.onnx")
    context, config = Context(tmp_path / "out", tmp_path, 0, 1), CompressConfig(method="gptq")
    result = run(context, {"graph": graph, "data": data_folder}, config)
    assert any("all 60 training rows" in note for note in result.notes)
    assert set(result.timings) == {"validate_fp32_seconds", "closed_form_seconds"}


def test_data_that_can_certify_nothing_ends_the_ladder(tmp_path: Path, net: onnx.ModelProto, data_folder: Path) -> None:
    graph = tmp_path / "graph"
    graph.mkdir()
    onnx.save(net, graph / "model.onnx")
    config = CompressConfig(calib_images=32, bias_images=16, max_drop_pp=0.5)
    result = run(Context(tmp_path / "out", tmp_path, 0, 1), {"graph": graph, "data": data_folder}, config)
    assert any(note.startswith("30 inputs cannot certify 0.5 pp accuracy") for note in result.notes)
    assert set(result.timings) == {"validate_fp32_seconds", "closed_form_seconds"}


def test_configs_refuse_typos() -> None:
    with pytest.raises(ValidationError):
        CompressConfig.model_validate({"calibration_images": 3})
    with pytest.raises(ValidationError):
        CompressConfig(calib_images=0)


def test_logits_need_a_tensor_of_that_name(net: onnx.ModelProto, pixels: Callable[..., np.ndarray]) -> None:
    next(node for node in net.graph.node if node.name == "head").output[0] = "other"
    net.graph.node[-2].input[0] = "other"
    with pytest.raises(QuantizationError, match="no tensor 'logits'"):
        logits_of(net, ArrayRows("pixels", pixels(1)), Execution())


def test_a_candidate_that_loses_too_much_does_not_hold_the_margin() -> None:
    labels = np.arange(200) % 2
    good = np.eye(2, dtype=np.float32)[labels] * 3
    good[:3] = -good[:3]  # a few mistakes, so that the temperature is finite
    bad = good.copy()
    bad[:40] = bad[:40, ::-1]
    block = judge(bad, good, labels, Bar("accuracy", 2.0, 0), (1.0, 1.0))
    assert block["drop_pp"] == pytest.approx(100 * 34 / 200)  # 37 lost, 3 gained
    assert block["agreement"] == pytest.approx(0.8)
    assert block["sqnr_db"] == pytest.approx(10 * np.log10((200 * 9) / (40 * (9 + 9))))  # 3 and 0 trade places in 40
    assert block["holds_margin"] is False
    same = judge(good, good, labels, Bar("accuracy", 5.0, 0), (1.0, 1.0))
    assert same["drop_pp"] == 0
    assert same["mean_abs_logit_error"] == 0
    assert same["sqnr_db"] is None
    assert same["holds_margin"] is True


def test_training_learns_from_rows_without_labels_and_a_teachers_answers(
    tmp_path: Path, net: onnx.ModelProto, data_folder: Path
) -> None:
    rows = [json.loads(line) for line in (data_folder / "rows.jsonl").read_text().splitlines()]
    for row in rows[90:]:
        row["split"] = "unlabelled"
    (data_folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Dataset.open(data_folder)
    studied = data.studied()
    assert set(studied) == {*data.indices("train"), *range(90, len(data))}
    graph, answers = tmp_path / "graph", tmp_path / "answers"
    for folder in (graph, answers):
        folder.mkdir()
    onnx.save(net, graph / "model.onnx")
    config = CompressConfig(method="qat", follow="teacher", calib_images=16, bias_images=8, max_drop_pp=80)
    own = logits_of(net, ArrayRows("pixels", data.pixels[studied]), Execution())
    extra = (studied >= 90)[:, None]
    given = {"graph": graph, "data": data_folder, "answers": answers}
    written = {}
    for name, shift in (("own", np.float32([0, 0, 0])), ("other", np.float32([2, 0, -2]))):
        Answers(studied, own + shift * extra).write(answers)  # of rows without labels alone
        folder = tmp_path / name
        folder.mkdir()
        run(Context(folder, tmp_path / "work", 7, 1), given, config)
        told = json.loads((folder / "candidates.json").read_text())["candidates"][1]
        assert told["method"].endswith("+qat_120x16_teacher")
        file = onnx.load(folder / told["file"])
        written[name] = logits_of(file, ArrayRows("pixels", data.pixels[studied]), Execution())
    apart = written["other"] - written["own"]
    assert apart[:, 0].mean() > 0 > apart[:, 2].mean()
    context = Context(tmp_path, tmp_path / "work", 7, 1)
    Answers(studied[::-1], own).write(answers)
    with pytest.raises(IntegrityError, match="answers to other rows"):
        run(context, given, config)
    with pytest.raises(UsageError, match="which is not trained"):
        run(context, given, config.model_copy(update={"method": "dynamic"}))

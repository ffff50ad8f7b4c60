"""The verify stage on a task worked out by hand: what each fault does to the hop that it belongs to."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from edgeft import catalog
from edgeft.core.errors import DataError, IntegrityError, UsageError
from edgeft.core.stage import Context, StageResult
from edgeft.pipeline import decide, lower
from edgeft.pipeline.stage_configs import ArgmaxConfig, LowerConfig, ThresholdConfig, VerifyConfig
from edgeft.pipeline.verification import stage as verify
from edgeft.quantize.rows import ArrayRows
from edgeft_exporters.onnx import OnnxExporter

CLASSES = ["red", "green", "blue"]


def logits_by_hand(_: Path, rows: Any, __: int, **___: object) -> npt.NDArray[np.float32]:  # noqa: ANN401 - rows
    pixels: npt.NDArray[np.uint8] = rows[:]["pixels"]
    return (4.0 * ((pixels.astype(np.float64) - 127) / 128).mean(axis=(1, 2))).astype(np.float32)


def changed(graph: bytes, **weights: npt.NDArray[np.float32]) -> bytes:
    model = onnx.ModelProto.FromString(graph)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))
    return bytes(model.SerializeToString())


class Way:
    """Stage folders of a finished walk, to be damaged and then verified."""

    def __init__(self, root: Path, data: Path, images: Path, graph: bytes) -> None:
        self.root, self.graph = root, graph
        self.data, self.images = root / "data", root / "images"
        shutil.copytree(data, self.data)
        shutil.copytree(images, self.images)
        for folder, name in [("checkpoint", "model.json"), ("graph", "graph.json")]:
            (root / folder).mkdir()
            (root / folder / name).write_text(json.dumps({"classes": CLASSES}))
        self.candidate("fp32", graph)
        self.candidate("int8", changed(graph, weight=np.eye(3) * 4.01, temperature=np.float32(1.5)))
        self.choose("int8")

    def candidate(self, name: str, data: bytes) -> None:
        path = self.root / "compress" / "candidates" / name / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        listed = [{"name": n, "precision": n, "temperature": 1.5 if n == "int8" else 1.0} for n in ("fp32", "int8")]
        (self.root / "compress" / "candidates.json").write_text(json.dumps({"candidates": listed}))

    def choose(self, name: str) -> None:
        folder = self.root / "choose"
        folder.mkdir(exist_ok=True)
        shutil.copy(self.root / "compress" / "candidates" / name / "model.onnx", folder / "model.onnx")
        (folder / "choice.json").write_text(json.dumps({"chosen": name}))

    def context(self, name: str) -> Context:
        (self.root / name).mkdir()
        return Context(self.root / name, self.root, seed=7, threads=1)

    def lower(self) -> StageResult:
        inputs = {"choose": self.root / "choose", "compress": self.root / "compress"}
        return lower.run(self.context("lower"), inputs, LowerConfig())

    def decide(self, **limits: float) -> StageResult:
        inputs = {"data": self.data, "lower": self.root / "lower", "compress": self.root / "compress"}
        if limits:
            return decide.threshold(self.context("decide"), inputs, ThresholdConfig(**limits))
        return decide.argmax(self.context("decide"), inputs, ArgmaxConfig())

    def verify(self, folder: str = "verify", **config: Any) -> dict[str, Any]:  # noqa: ANN401 - config values
        if not (self.root / "lower").exists():
            self.lower()
        if not (self.root / "decide").exists():
            self.decide()
        inputs = {name: self.root / name for name in ("checkpoint", "graph", "compress", "lower", "decide")}
        self.result = verify.run(
            self.context(folder), {**inputs, "data": self.data, "images": self.images}, VerifyConfig(**config)
        )
        found: dict[str, Any] = json.loads((self.root / folder / "verify.json").read_text())
        return found


@pytest.fixture
def way(tmp_path: Path, tiny_data: Path, tiny_images: Path, tiny_graph: Path, monkeypatch: pytest.MonkeyPatch) -> Way:
    resolve = catalog.resolve

    def resolved(reference: str) -> Any:  # noqa: ANN401 - as catalog.resolve
        return logits_by_hand if reference == "edgeft.models.predict:logits" else resolve(reference)

    monkeypatch.setattr(catalog, "resolve", resolved)
    monkeypatch.setattr(catalog, "exporter", lambda _: OnnxExporter())
    return Way(tmp_path, tiny_data, tiny_images, tiny_graph.read_bytes())


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {gate["name"]: gate["verdict"] for gate in found["gates"]}


def test_a_sound_way_passes_every_hop(way: Way) -> None:
    found = way.verify(max_drop_pp=15.0)
    assert [hop["name"] for hop in found["hops"]] == [
        "torch > fp32",
        "fp32 > int8",
        "int8 > runtime",
        "runtime > raw files",
    ]
    assert verdicts(found) == {
        "parity torch > fp32": "PASS",
        "parity int8 > runtime": "PASS",
        "parity runtime > raw files": "PASS",
        "accuracy": "PASS",
    }
    assert found["n"] == 36
    assert found["hops"][1]["verdict"] is None
    dark = (127 - 80) / 128  # the other two channels average 80
    assert found["hops"][1]["max_abs_logit_error"] == pytest.approx(0.01 * dark, rel=0.1)
    assert found["hops"][3]["max_abs_logit_error"] == 0.0
    assert found["metrics"]["int8"]["accuracy"] == 1.0
    assert found["metrics"]["int8"]["confusion"] == [[12, 0, 0], [0, 12, 0], [0, 0, 12]]
    assert found["metrics"]["fp32"]["auroc"] == 1.0
    assert len(found["metrics"]["fp32"]["roc"]) == 3
    assert found["drop"]["n"] == 36
    assert found["flips"] == []


def test_it_repeats_byte_for_byte(way: Way) -> None:
    way.verify("first")
    way.verify("second")
    for name in ("verify.json", "predictions.npz"):
        assert (way.root / "first" / name).read_bytes() == (way.root / "second" / name).read_bytes()


def test_predictions_are_kept(way: Way) -> None:
    way.verify()
    with np.load(way.root / "verify" / "predictions.npz") as kept:
        pixels = np.load(way.data / "pixels.npy")[kept["index"]]
        by_hand = logits_by_hand(way.root, ArrayRows("pixels", pixels), 1)
        np.testing.assert_allclose(kept["fp32_logits"], by_hand, atol=1e-5)
        assert kept["raw_scores"].tobytes() == kept["runtime_scores"].tobytes()


def test_a_fault_in_the_export_names_its_hop(way: Way) -> None:
    way.candidate("fp32", changed(way.graph, mean=np.float32(123.0)))
    found = way.verify(max_drop_pp=15.0)
    assert [name for name, verdict in verdicts(found).items() if verdict == "FAIL"] == ["parity torch > fp32"]
    assert "the fault is in the step torch > fp32" in found["gates"][0]["detail"]


def test_a_fault_in_lowering_names_its_hop(way: Way) -> None:
    way.lower()
    way.root.joinpath("lower", "onnx", "model.onnx").write_bytes(
        changed(way.graph, weight=np.eye(3) * 4.5, temperature=np.float32(1.5))
    )
    assert [name for name, verdict in verdicts(way.verify(max_drop_pp=15.0)).items() if verdict == "FAIL"] == [
        "parity int8 > runtime"
    ]


def test_a_fault_in_preprocessing_names_its_hop(way: Way) -> None:
    head = json.loads((way.data / "dataset.json").read_text())
    head["input"]["filter"] = "lanczos"
    (way.data / "dataset.json").write_text(json.dumps(head))
    found = way.verify(max_drop_pp=15.0)
    assert [name for name, verdict in verdicts(found).items() if verdict == "FAIL"] == ["parity runtime > raw files"]
    assert "36 of 36 raw files give other pixels" in found["gates"][2]["detail"]


def test_a_model_that_lost_its_accuracy_fails_and_shows_the_flips(way: Way) -> None:
    swapped = np.eye(3)[:, [0, 2, 1]] * 4
    way.candidate("int8", changed(way.graph, weight=swapped, temperature=np.float32(1.5)))
    way.choose("int8")
    found = way.verify(thumbnails=5)
    assert verdicts(found)["accuracy"] == "FAIL"
    assert found["drop"]["value_pp"] == pytest.approx(100 * 24 / 36)
    assert len(found["flips"]) == 24
    assert all(flip["harmful"] for flip in found["flips"])
    first = found["flips"][0]
    assert {first["label"], first["fp32"], first["chosen"]} == {"green", "blue"}
    shown = [flip for flip in found["flips"] if flip["thumbnail"]]
    assert len(shown) == 5
    picture = np.asarray(Image.open(way.root / "verify" / first["thumbnail"]))
    assert np.array_equal(picture, np.load(way.data / "pixels.npy")[first["index"]])
    assert any("accuracy: FAIL" in note for note in way.result.notes)


def test_what_the_split_cannot_decide_is_inconclusive_and_says_what_would(way: Way) -> None:
    found = way.verify(max_drop_pp=1.0)
    gate = next(gate for gate in found["gates"] if gate["name"] == "accuracy")
    assert gate["verdict"] == "INCONCLUSIVE"
    assert "would certify 1 pp" in gate["detail"]


def test_float_that_ships_itself_has_no_compressing_hop(way: Way) -> None:
    way.choose("fp32")
    found = way.verify(max_drop_pp=0.1)
    assert [hop["name"] for hop in found["hops"]] == ["torch > fp32", "fp32 > runtime", "runtime > raw files"]
    assert set(found["metrics"]) == {"fp32"}
    assert verdicts(found)["accuracy"] == "PASS"
    assert "nothing was compressed" in found["drop"]["method"]


def another_class_order(way: Way) -> None:
    (way.root / "graph" / "graph.json").write_text(json.dumps({"classes": CLASSES[::-1]}))


def a_changed_file(way: Way) -> None:
    Image.new("RGB", (9, 9)).save(way.images / "red" / "2.png")


def a_missing_file(way: Way) -> None:
    (way.images / "red" / "2.png").unlink()


def a_missing_class(way: Way) -> None:
    rows = [json.loads(line) for line in (way.data / "rows.jsonl").read_text().splitlines()]
    moved = [{**row, "split": "train"} if row["class"] == "blue" and row["split"] == "test" else row for row in rows]
    (way.data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in moved))


@pytest.mark.parametrize(
    ("damage", "error", "why"),
    [
        (another_class_order, IntegrityError, r"graph\.json: classes"),
        (a_changed_file, DataError, r"2\.png: changed since"),
        (a_missing_file, DataError, r"2\.png: cannot be read"),
        (a_missing_class, DataError, "no row of class 'blue'"),
    ],
)
def test_damage_is_named(way: Way, damage: Callable[[Way], None], error: type[Exception], why: str) -> None:
    damage(way)
    with pytest.raises(error, match=why):
        way.verify()


def test_lowering_says_what_it_made(way: Way) -> None:
    result = way.lower()
    lowered = json.loads((way.root / "lower" / "lowered.json").read_text())
    assert (lowered["chosen"], lowered["precision"], lowered["temperature"]) == ("int8", "int8", 1.5)
    findings = json.loads((way.root / "lower" / "onnx" / "lint.json").read_text())
    assert result.measurements["float_ops"] == len(findings)
    assert result.measurements["size_bytes"] == (way.root / "lower" / "onnx" / "model.onnx").stat().st_size


def test_decisions_of_another_file_are_stale(way: Way) -> None:
    way.lower()
    way.decide()
    model = way.root / "lower" / "onnx" / "model.onnx"
    model.write_bytes(changed(model.read_bytes(), weight=np.eye(3) * 4.02))
    with pytest.raises(IntegrityError, match=r"decision\.json: fitted through another file than .*: it is stale"):
        way.verify()


def test_thresholds_are_of_what_ships_and_the_float_graph_has_its_own(way: Way) -> None:
    way.candidate("int8", changed(way.graph, weight=np.eye(3) * 2.0, temperature=np.float32(1.5)))
    way.choose("int8")
    way.lower()
    result = way.decide(max_escape=0.2)
    found = json.loads((way.root / "decide" / "decision.json").read_text())
    assert result.measurements["stop_at"] == found["shipped"]["stop_at"] != found["fp32"]["stop_at"]
    kept = np.load(way.root / "decide" / "validation.npz")
    bad = kept["labels"] != CLASSES.index("green")
    for name in ("shipped", "fp32"):
        escaped = 1 - kept[name][bad][:, 1].astype(float) < found[name]["stop_at"]
        assert escaped.sum() == int(0.2 * (bad.sum() + 1)) - 1


def test_held_limits_are_gates_and_metrics_are_of_the_decisions(way: Way) -> None:
    way.lower()
    way.decide(max_escape=0.2, max_overkill=0.3)
    found = way.verify(max_drop_pp=15.0, max_escape=0.2, max_overkill=0.3)
    gates = {gate["name"]: gate for gate in found["gates"] if gate["unit"] == "share"}
    assert set(gates) == {"escape", "overkill"}
    scores = np.load(way.root / "verify" / "predictions.npz")
    rule = found["decision"]
    bad, badness = scores["label"] != 1, 1 - scores["raw_scores"][:, 1].astype(float)
    escaped = int((badness[bad] < rule["stop_at"]).sum())
    assert gates["escape"]["value"] == escaped / bad.sum()
    assert gates["escape"]["n"] == 24
    good = int((badness[~bad] < rule["stop_at"]).sum())
    assert np.array(found["metrics"]["int8"]["confusion"])[1, 1] == good
    assert gates["overkill"]["value"] == int((badness[~bad] >= rule["sure_at"]).sum()) / 12


def test_operating_points_are_fitted_on_validation_and_measured_on_test(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeft.pipeline.verification.rates.OVERKILL_LIMITS", (0.01, 0.3))
    found = way.verify()
    points = {point["max_overkill"]: point for point in found["decision"]["operating_points"]}
    assert "too few" in points[0.01]["reason"]
    kept, tested = np.load(way.root / "decide" / "validation.npz"), np.load(way.root / "verify" / "predictions.npz")
    point = points[0.3]
    good = 1 - kept["shipped"][kept["labels"] == 1][:, 1].astype(float)
    assert (good >= point["stop_at"]).sum() == int(0.3 * (len(good) + 1)) - 1
    bad = tested["label"] != 1
    stopped = 1 - tested["raw_scores"][:, 1].astype(float) >= point["stop_at"]
    assert (point["recall"]["count"], point["recall"]["n"]) == (stopped[bad].sum(), bad.sum())
    assert (point["overkill"]["count"], point["overkill"]["n"]) == (stopped[~bad].sum(), (~bad).sum())


def test_thresholds_need_a_class_of_good_parts(way: Way) -> None:
    head = json.loads((way.data / "dataset.json").read_text())
    (way.data / "dataset.json").write_text(json.dumps({**head, "ok_class": None}))
    way.lower()
    with pytest.raises(UsageError, match=r"needs the class of good parts") as caught:
        way.decide(max_escape=0.1)
    assert caught.value.hint == "name it: data.ok_class"


def test_accuracy_is_told_by_slice(way: Way) -> None:
    rows = [json.loads(line) for line in (way.data / "rows.jsonl").read_text().splitlines()]
    sliced = [{**row, "slices": {"camera": "ab"[row["index"] % 2]}} for row in rows]
    (way.data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sliced))
    way.candidate("int8", changed(way.graph, weight=np.eye(3)[:, [0, 2, 1]] * 4, temperature=np.float32(1.5)))
    way.choose("int8")
    found = way.verify()["metrics"]["int8"]["slices"]["camera"]
    kept = np.load(way.root / "verify" / "predictions.npz")
    right = kept["raw_scores"].argmax(axis=1) == kept["label"]
    for row in found["values"]:
        inside = np.array(["ab"[index % 2] == row["value"] for index in kept["index"]])
        assert (row["n"], row["accuracy"]) == (inside.sum(), right[inside].mean())
        bad = inside & (kept["label"] != 1)
        assert (row["escape"]["n"], row["overkill"]["n"]) == (bad.sum(), inside.sum() - bad.sum())
    assert found["gap"]["value"] == pytest.approx(abs(np.subtract(*[row["accuracy"] for row in found["values"]])))

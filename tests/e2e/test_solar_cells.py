"""The sample as a newcomer runs it, small: build, build again, look at what came out. Real images, real weights."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

SAMPLE = Path(__file__).parents[2] / "samples" / "solar_cells"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sample") / "solar_cells"
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns(".edgeft", "dist"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def first(edgeft: Callable[..., Any], recipe: Path) -> SimpleNamespace:
    ran: SimpleNamespace = edgeft("build", recipe, "--smoke")
    return ran


def test_the_first_build_runs_every_stage_and_says_what_it_made(first: SimpleNamespace) -> None:
    assert first.code in {0, 5, 6}, first.stderr  # a smoke model may fail a gate; it must never crash
    assert not any(stage["reused"] for stage in first.json["stages"])
    names = [stage["name"] for stage in first.json["stages"]]
    assert names == [
        name
        for name in (
            "data",
            "finetune",
            "merge",
            "export",
            "compress",
            "choose",
            "lower",
            "decide",
            "verify",
            "latency",
            "bundle",
        )
        if name in names
    ]
    assert {"data", "finetune", "merge", "export", "compress", "choose", "lower", "decide", "verify"} <= set(names)
    assert Path(first.json["bundle"]).is_dir()
    assert Path(first.json["report"]).is_file()
    assert {gate["verdict"] for gate in first.json["gates"]} <= {"PASS", "FAIL", "INCONCLUSIVE"}


def test_the_second_build_reuses_every_cacheable_stage_and_makes_the_same_bundle(
    first: SimpleNamespace, edgeft: Callable[..., Any], recipe: Path
) -> None:
    before = json.loads((Path(first.json["bundle"]) / "manifest.json").read_text())
    second = edgeft("build", recipe, "--smoke")
    assert second.code == first.code or {second.code, first.code} <= {0, 6}, second.stderr
    assert [
        s["name"] for s in second.json["stages"] if not s["reused"] and s["name"] not in {"latency", "bundle"}
    ] == []
    after = json.loads((Path(second.json["bundle"]) / "manifest.json").read_text())
    assert after["content_digest"] == before["content_digest"]


@pytest.mark.usefixtures("first")
def test_a_changed_learning_rate_reruns_from_finetune_and_plan_says_why(
    edgeft: Callable[..., Any], recipe: Path
) -> None:
    plan = edgeft("plan", recipe, "--smoke", "--set", "finetune.lr=0.00123")
    assert plan.code == 0, plan.stderr
    rows = {row["stage"]: row for row in plan.json["stages"]}
    assert rows["data"]["will_run"] is False
    assert rows["finetune"]["will_run"] is True
    assert "lr" in rows["finetune"]["reason"]


def test_the_bundle_predicts_from_raw_files_and_verifies(
    first: SimpleNamespace, edgeft: Callable[..., Any], tmp_path: Path
) -> None:
    bundle = Path(first.json["bundle"])
    assert edgeft("verify", bundle).code == 0
    image = tmp_path / "grey.png"
    Image.fromarray(np.full((300, 300), 90, np.uint8)).save(image)
    predicted = edgeft("predict", bundle, image)
    assert predicted.code == 0, predicted.stderr
    (row,) = predicted.json["predictions"]
    assert row["label"] in {"defective", "functional"}
    assert sum(row["scores"].values() if isinstance(row["scores"], dict) else row["scores"]) == pytest.approx(
        1, abs=1e-5
    )


def test_a_flipped_byte_in_the_model_is_refused(
    first: SimpleNamespace, edgeft: Callable[..., Any], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(first.json["bundle"], bundle)
    model = bundle / "model.onnx"
    model.chmod(0o644)
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(bytes(data))
    refused = edgeft("verify", bundle)
    assert refused.code == 8
    assert "model.onnx" in refused.json["message"]

"""Distilling the sample as a newcomer would, small: a pruned student that reads smaller images, and its bundle."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeft.runtime.abba import LOOKS

SAMPLE = Path(__file__).parents[2] / "samples" / "solar_cells"
BLOCK = "{prune: 0.3, student: {input: {height: 160, width: 160}}, attention: 1.0, relations: 1.0, baselines: true}"


@pytest.fixture(scope="module")
def built(edgeft: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("sample") / "solar_cells"
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns(".edgeft", "dist"))
    more = folder / "more"
    more.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(more / f"{number}.png")
    sets = (f"distill={BLOCK}", "data.unlabelled=more", "compress.follow=teacher")
    sets += ("verify.accuracy.max_drop_from_teacher_pp=99",)
    found: SimpleNamespace = edgeft("build", folder, "--smoke", *(word for each in sets for word in ("--set", each)))
    return found


def test_the_student_ships_at_its_own_size(built: SimpleNamespace, edgeft: Callable[..., Any]) -> None:
    assert built.code in {0, 5, 6}, built.stderr  # a smoke model may fail a gate; it must never crash
    names = [stage["name"] for stage in built.json["stages"]]
    assert names[:7] == ["data", "teacher_data", "finetune", "merge", "distill", "answers", "teacher_graph"]
    bundle = Path(built.json["bundle"])
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["input"]["height"] == 160
    parity = [gate for gate in built.json["gates"] if gate["name"].startswith("parity")]
    assert {gate["verdict"] for gate in parity} == {"PASS"}
    (taught,) = [gate for gate in built.json["gates"] if gate["name"] == "accuracy vs teacher"]
    assert (taught["verdict"], taught["limit"]) == ("PASS", 99)
    assert taught["value"] == built.json["below_teacher"]["value_pp"]
    assert edgeft("verify", bundle).code == 0


def test_teacher_student_and_baselines_are_reported_side_by_side(built: SimpleNamespace) -> None:
    record = json.loads((Path(built.json["bundle"]) / "report.json").read_text())
    found = record["verify"]["distillation"]
    assert set(found["arms"]) >= {"teacher", "student", "without_teacher", "from_scratch"}
    arms = found["arms"]
    assert arms["student"]["size_bytes"] == pytest.approx(arms["without_teacher"]["size_bytes"], rel=0.01)
    assert arms["student"]["size_bytes"] < arms["teacher"]["size_bytes"]
    assert found["n"] == record["verify"]["n"]
    assert round((1 - found["agreement"]) * found["n"]) == len(found["disagreements"])
    assert found["latency"]["rounds"] <= LOOKS[0]
    assert found["latency"]["times_as_fast"]["value"] == pytest.approx(1 / found["latency"]["ratio"])
    distill = next(stage for stage in record["stages"] if stage["name"] == "distill")
    assert distill["measurements"]["unlabelled"] == 8
    assert any("pruned" in note for note in distill["notes"])
    low, high = found["drop"]["interval_pp"]
    assert low <= found["drop"]["value_pp"] <= high
    assert record["student"]["base"] is None
    assert len(record["student"]["history"]) == 1
    papers = {name: (Path(built.json["bundle"]) / name).read_text() for name in ("LICENSES.md", "MODEL_CARD.md")}
    assert "- **data without labels**: more: not stated" in papers["LICENSES.md"]
    assert "| student | cut out of its teacher |" in papers["MODEL_CARD.md"]
    page = (Path(built.json["bundle"]) / "report.html").read_text()
    assert "Student and teacher, each by its highest score, disagree on" in page

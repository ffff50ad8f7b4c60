"""What build, plan and runs show, from records written by hand."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeft.cli.history import history
from edgeft.cli.main import app
from edgeft.cli.summary import build_object, build_text, plan_object, plan_text

RUNNER = CliRunner()

RECORD: dict[str, Any] = {
    "schema": 1,
    "run": "20261121-120000-abc123",
    "status": "passed",
    "exit_code": 0,
    "bundle": "/out/cells",
    "report": "/out/cells/report.html",
    "started": "2026-11-21T12:00:00Z",
    "seconds": 372.4,
    "seed": 0,
    "gates": [
        {
            "name": "accuracy",
            "verdict": "PASS",
            "value": 0.38,
            "interval": [-0.2, 0.95],
            "limit": 2.0,
            "unit": "pp",
            "n": 655,
            "detail": "int8 loses 0.38 pp",
            "exit_code": 5,
        },
        {
            "name": "latency vs_fp32",
            "verdict": "INCONCLUSIVE",
            "value": 0.71,
            "interval": None,
            "limit": 1.0,
            "unit": "ratio",
            "n": 9,
            "detail": "noisy machine",
            "exit_code": 6,
        },
    ],
    "stages": [
        {
            "name": "data",
            "method": "images",
            "key": "a" * 64,
            "reused": True,
            "reason": "reused",
            "seconds": 0.2,
            "measurements": {"n": 2624},
            "notes": ["3 images quarantined [see dataset.json]"],
            "timings": {},
        },
        {
            "name": "finetune",
            "method": "gradual",
            "key": "b" * 64,
            "reused": False,
            "reason": "runs because finetune.lr changed 0.1 -> 0.2",
            "seconds": 312.0,
            "measurements": {"val_accuracy": 0.9},
            "notes": [],
            "timings": {},
        },
    ],
}
PLAN: dict[str, Any] = {
    "rows": [
        {"stage": "data", "method": "images", "key": "a" * 64, "runs": False, "reason": "reused", "seconds": None},
        {"stage": "finetune", "method": "gradual", "key": None, "runs": True, "reason": "first run", "seconds": 185.0},
    ],
    "recipe": {"version": 1},
    "certifiable": {"n": 525, "margins_pp": {"0.01": 1.3}, "asked_pp": 2.0, "detail": "the test split has 525 images"},
    "seconds": 185.0,
}


def test_build_text_shows_stages_gates_notes_and_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = build_text(RECORD)
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "reused" in lines["data"]
    assert "5 min 12 s" in lines["finetune"]
    assert "finetune.lr changed 0.1 -> 0.2" in lines["finetune"]
    assert lines["accuracy"].split()[:8] == ["accuracy", "PASS", "0.38", "pp", "-0.2", "to", "0.95", "2"]
    assert "exact" in lines["latency"]
    assert "INCONCLUSIVE" in lines["latency"]
    assert "3 images quarantined [see dataset.json]" in text
    assert "/out/cells/report.html" in lines["report"]
    assert "6 min 12 s" in lines["status"]


def test_build_object_has_what_scripts_read() -> None:
    found = build_object(RECORD)
    assert set(found) == {"status", "exit_code", "run", "bundle", "report", "gates", "stages", "measurements"}
    assert found["measurements"] == {"data": {"n": 2624}, "finetune": {"val_accuracy": 0.9}}
    assert found["gates"][0]["interval"] == [-0.2, 0.95]


def test_a_student_is_told_beside_its_teacher() -> None:
    drop = {"metric": "balanced_accuracy", "value_pp": 1.64, "interval_pp": [0.4, 2.9]}
    record = {**RECORD, "verify": {"distillation": {"drop": drop}}}
    assert "1.6 points of balanced accuracy below its teacher (0.4 to 2.9)" in build_text(record)
    assert build_object(record)["below_teacher"] == drop


def test_plan_text_and_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = plan_text(PLAN)
    assert "about 3 min 05 s" in text
    assert "the test split has 525 images" in text
    rows = plan_object(PLAN)["stages"]
    assert [(row["stage"], row["will_run"], row["reason"]) for row in rows] == [
        ("data", False, "reused"),
        ("finetune", True, "first run"),
    ]


def test_plan_says_where_nothing_is_known_yet() -> None:
    text = plan_text({**PLAN, "seconds": None, "certifiable": None})
    assert "not known" in text
    assert "known once data has run" in text


def _keep(cache: Path, record: dict[str, Any]) -> None:
    folder = cache / "runs" / record["run"]
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record))


def test_runs_lists_records_by_time_and_names_an_unreadable_one(tmp_path: Path) -> None:
    cache = tmp_path / ".edgeft"
    _keep(cache, RECORD)
    _keep(cache, {**RECORD, "run": "20261120-120000-ffffff", "started": "2026-11-20T12:00:00Z", "status": "failed"})
    broken = cache / "runs" / "zzz" / "record.json"
    broken.parent.mkdir()
    broken.write_text("{")
    listed = history(cache)
    assert [row["run"] for row in listed] == ["zzz", "20261120-120000-ffffff", "20261121-120000-abc123"]
    assert listed[0]["status"] == "unreadable"
    assert (listed[2]["stages"], listed[2]["reused"]) == (2, 1)
    result = RUNNER.invoke(app, ["runs", str(tmp_path)], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "accuracy PASS 0.38 pp" in result.stdout


def test_runs_of_an_empty_cache(tmp_path: Path) -> None:
    assert RUNNER.invoke(app, ["runs", "--cache", str(tmp_path)]).stdout == "no builds yet\n"
    result = RUNNER.invoke(app, ["runs", "--cache", str(tmp_path), "--json"])
    assert json.loads(result.stdout) == {"status": "ok", "exit_code": 0, "runs": []}


class _Engine:
    """Stands in for the engine: remembers how it was called, prints as careless libraries do, returns RECORD."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.called: dict[str, Any] = {}

    def open(self, path: Path, overrides: tuple[str, ...], *, smoke: bool) -> SimpleNamespace:
        self.called |= {"path": path, "overrides": overrides, "smoke": smoke}
        return SimpleNamespace(folder=Path("/recipes/cells"), name="cells")

    def build(self, recipe: SimpleNamespace, **options: object) -> SimpleNamespace:
        self.called |= {"recipe": recipe, **options}
        print("a library prints to stdout")  # noqa: T201 - what the command line must survive
        return SimpleNamespace(to_json=lambda: self.record)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> _Engine:
    stand_in = _Engine(RECORD)
    monkeypatch.setattr("edgeft.recipe.load.load_recipe", stand_in.open)
    monkeypatch.setattr("edgeft.pipeline.build.build", stand_in.build)
    return stand_in


def test_build_json_is_the_only_thing_on_stdout(engine: _Engine) -> None:
    result = RUNNER.invoke(app, ["build", "cells", "--json"])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["bundle"] == "/out/cells"
    assert "a library prints to stdout" in result.stderr
    assert engine.called["cache"] == Path("/recipes/cells/.edgeft")


def test_build_prints_the_bundle_s_path_for_scripts(engine: _Engine) -> None:
    result = RUNNER.invoke(app, ["build", "cells"])
    assert result.stdout == "/out/cells\n"
    assert engine.called["latency"] is True


def test_build_hands_every_option_over(engine: _Engine, tmp_path: Path) -> None:
    options = ["--set", "a.b=1", "--set", "c=2", "--smoke", "--no-latency", "--strict", "--seed", "7"]
    places = ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    assert RUNNER.invoke(app, ["build", "cells", *options, *places]).exit_code == 0
    assert engine.called["overrides"] == ("a.b=1", "c=2", "seed=7")
    assert (engine.called["smoke"], engine.called["latency"], engine.called["strict"]) == (True, False, True)
    assert (engine.called["cache"], engine.called["out"]) == (tmp_path / "cache", tmp_path / "out")


@pytest.mark.parametrize("code", [5, 6, 7])
def test_build_exits_with_the_record_s_code(engine: _Engine, code: int) -> None:
    engine.record = {**RECORD, "status": "failed", "exit_code": code}
    result = RUNNER.invoke(app, ["build", "cells", "--json"])
    assert result.exit_code == code
    assert json.loads(result.stdout)["exit_code"] == code


def test_offline_is_told_to_the_hub_libraries_before_they_load(
    engine: _Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    assert RUNNER.invoke(app, ["build", "cells", "--offline"]).exit_code == 0
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["TRANSFORMERS_OFFLINE"]) == ("1", "1")
    assert engine.called["strict"] is False


def test_a_budget_asks_for_a_student(tmp_path: Path) -> None:
    sample = Path(__file__).parents[3] / "samples" / "solar_cells"
    done = RUNNER.invoke(app, ["plan", str(sample), "--cache", str(tmp_path), "--budget-ms", "4.5", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert "propose" in [stage["stage"] for stage in found["stages"]]
    assert found["recipe"]["distill"]["budget_ms"] == 4.5

"""build(): gates, exit codes, the record, where the bundle goes."""

import json
from pathlib import Path

import pytest

from edgeft.bundle.sign import SigningKey
from edgeft.core.errors import DeviceError, UsageError
from edgeft.pipeline import build as room
from edgeft.pipeline.record import RunRecord
from edgeft.pipeline.target_result import TargetResult
from edgeft.recipe.load import load_recipe
from edgeft.recipe.model import Recipe


@pytest.fixture(autouse=True)
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(
        record: RunRecord, result: TargetResult, recipe: Recipe, images: Path, out: Path, key: SigningKey | None
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        told = [recipe.name, images.name, sorted(result.entries), record.status, record.bundle, result.target, str(key)]
        (out / "manifest.json").write_text(json.dumps(told))

    monkeypatch.setattr(room, "assemble", pack)


def build(project: Path, *overrides: str, out: Path | None = None, strict: bool = False) -> RunRecord:
    recipe = load_recipe(project, overrides)
    return room.build(recipe, cache=project / ".edgeft", out=out, latency=False, strict=strict)


def with_verdict(monkeypatch: pytest.MonkeyPatch, verdict: str) -> None:
    from edgeft import catalog

    monkeypatch.setattr(catalog.resolve("toy_room:TargetConfig").model_fields["verdict"], "default", verdict)
    catalog.resolve("toy_room:TargetConfig").model_rebuild(force=True)


def test_a_good_build_leaves_a_bundle_and_a_record(project: Path) -> None:
    record = build(project)
    assert (record.status, record.exit_code) == ("passed", 0)
    assert Path(record.bundle) == project / "dist" / "My-Parts"
    stored = json.loads((project / ".edgeft" / "runs" / record.run / "record.json").read_text())
    assert stored == record.to_json()
    assert stored["schema"] == 1
    assert stored["gates"][0]["verdict"] == "PASS"
    assert stored["data"]["n"] == 3
    assert stored["recipe"]["finetune"]["epochs"] == 2
    assert stored["recipe_text"] == (project / "recipe.yaml").read_text()
    assert stored["latency"] is None
    assert stored["versions"]["pytest"] == pytest.__version__
    assert stored["machine"]["cores"] >= 1


def test_the_second_build_reuses_everything_although_the_bundle_lies_beside_the_recipe(project: Path) -> None:
    build(project, "data.source=.", "data.images=images")
    assert all(stage.reused for stage in build(project, "data.source=.", "data.images=images").stages)


@pytest.mark.parametrize(("verdict", "code", "status"), [("FAIL", 5, "failed"), ("INCONCLUSIVE", 7, "inconclusive")])
def test_a_gate_decides_the_exit_code(
    project: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, code: int, status: str
) -> None:
    with_verdict(monkeypatch, verdict)
    record = build(project, strict=True)
    with_verdict(monkeypatch, "PASS")
    assert (record.exit_code, record.status) == (code, status)


def test_a_failed_build_does_not_take_the_place_of_a_good_bundle(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Path(build(project).bundle)
    with_verdict(monkeypatch, "FAIL")
    failed = Path(build(project, "finetune.lr=9").bundle)
    with_verdict(monkeypatch, "PASS")
    assert failed == good.with_name("My-Parts.failed")
    assert json.loads((good / "manifest.json").read_text())[3] == "passed"
    assert json.loads((failed / "manifest.json").read_text())[3] == "failed"
    assert Path(build(project).bundle) == good
    assert not failed.exists()


def test_a_bundle_folder_that_holds_something_else_is_refused_before_any_work(project: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        build(project, out=tmp_path / "home")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is no folder"):
        build(project, out=tmp_path / "file")
    assert not (project / ".edgeft").exists()


def test_an_output_that_cannot_be_made_is_refused_before_any_work(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="bundle's folder"):
        build(project, out=tmp_path / "file" / "dist")
    assert not (project / ".edgeft").exists()

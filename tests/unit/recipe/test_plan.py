"""The plan: what would run and why."""

import json
from pathlib import Path

import pytest

from edgeft import catalog
from edgeft.core.errors import DataError, UsageError
from edgeft.core.sources import SourceDigests
from edgeft.core.store import Store
from edgeft.pipeline.walk import walk
from edgeft.recipe.load import load_recipe
from edgeft.recipe.plan import _limits, make_plan
from edgeft.recipe.resolve import Resolver, source_digests
from edgeft.recipe.stages import stages


def run(project: Path, *overrides: str) -> Store:
    recipe = load_recipe(project, overrides)
    store = Store(project / ".edgeft")
    store.prepare()
    resolver = Resolver(store, SourceDigests((recipe.path,)), recipe.seed)
    walk(stages(recipe, store), resolver, store, lambda _: None)
    return store


def reasons(project: Path, *overrides: str) -> dict[str, str]:
    plan = make_plan(load_recipe(project, overrides), Store(project / ".edgeft"))
    return {row.stage: row.reason for row in plan.rows}


def test_the_first_plan_knows_that_everything_runs_and_writes_nothing(project: Path) -> None:
    plan = make_plan(load_recipe(project), Store(project / ".edgeft"))
    assert [row.stage for row in plan.rows] == [
        "data", "finetune", "export", "compress", "choose", "lower", "decide", "verify", "latency", "bundle",
    ]  # fmt: skip
    assert {row.reason for row in plan.rows[:8]} == {"first run"}
    assert [row.key is None for row in plan.rows[:2]] == [False, True]
    assert plan.seconds is None
    assert plan.certifiable is None
    assert not (project / ".edgeft").exists()


def test_after_a_run_everything_is_reused(project: Path) -> None:
    run(project)
    plan = make_plan(load_recipe(project), Store(project / ".edgeft"))
    assert {row.reason for row in plan.rows[:8]} == {"reused"}
    assert not any(row.runs for row in plan.rows[:8])
    assert plan.seconds == 0


def test_a_changed_setting_is_named_with_both_values(project: Path) -> None:
    run(project)
    found = reasons(project, "finetune.lr=0.002")
    assert found["data"] == "reused"
    assert found["finetune"] == "runs because finetune.lr changed 0.001 -> 0.002"
    assert found["export"] == "runs because finetune runs"
    assert found["choose"] == "runs because compress runs"


@pytest.mark.parametrize(
    ("override", "stage", "reason"),
    [
        ("finetune.method=frozen", "finetune", "runs because finetune.method changed gradual -> frozen"),
        ("seed=3", "data", "runs because seed changed 0 -> 3"),
        ("model.dropout=0.2", "finetune", "runs because model.dropout changed 0.0 -> 0.2"),
        ("model.input={resize: squash}", "data", "runs because model.input.resize changed shorter_side -> squash"),
        ("compress.precision=fp32", "compress", "runs because compress.precision changed int8 -> fp32"),
        ("verify.accuracy.max_drop_pp=1", "compress", "runs because verify.accuracy.max_drop_pp changed 2.0 -> 1.0"),
        ("decide={method: threshold, max_escape: 0.1}", "decide", "decide.method changed argmax -> threshold"),
        ("data.split.train=0.5", "data", "runs because data.split.train changed 0.6 -> 0.5"),
    ],
)
def test_the_reason_names_the_recipe_key(project: Path, override: str, stage: str, reason: str) -> None:
    run(project)
    assert reason in reasons(project, override)[stage].replace(", model.input.resize_to changed 256 -> null", "")


def test_changed_images_are_named_and_the_recipe_is_no_image(project: Path) -> None:
    run(project)
    (project / "images" / "1.png").write_text("other")
    found = reasons(project)
    assert found["data"] == "runs because source changed on disk, images changed on disk"
    assert found["finetune"] == "runs because data runs"


def test_an_upstream_rerun_with_equal_bytes_stops_there(project: Path) -> None:
    run(project)
    recipe = load_recipe(project, ["finetune.lr=0.5"])
    store = Store(project / ".edgeft")
    resolver = Resolver(store, SourceDigests((recipe.path,)), recipe.seed)
    heard: list[object] = []
    _, records = walk(stages(recipe, store), resolver, store, heard.append)
    # The toy export keeps the epochs only, so its new entry has the old bytes and everything after it is reused.
    assert {record.name: record.reused for record in records} == {
        "data": True, "finetune": False, "export": False, "compress": True, "choose": True, "lower": True,
        "decide": True, "verify": False,
    }  # fmt: skip
    assert records[-1].reason == "runs because upstream finetune changed"


def test_a_result_that_was_removed_or_damaged_says_so(project: Path) -> None:
    store = run(project)
    rows = {row.stage: row for row in make_plan(load_recipe(project), store).rows}
    (store.cache / "store" / rows["data"].key / "out" / "dataset.json").unlink()
    assert "stored result is damaged: dataset.json" in reasons(project)["data"]
    entry = store.cache / "store" / rows["data"].key
    entry.rename(project / "gone")
    assert reasons(project)["data"] == "runs because its stored result is gone"


def test_a_stopped_stage_says_that_it_resumes(project: Path) -> None:
    run(project)
    changed = make_plan(load_recipe(project, ["finetune.lr=1.0"]), Store(project / ".edgeft")).rows[1]
    scratch = project / ".edgeft" / "work" / changed.key / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "epoch.json").write_text("1")
    assert reasons(project, "finetune.lr=1.0")["finetune"] == "resumes a run that was stopped"


def test_the_plan_says_what_the_test_split_can_certify(project: Path) -> None:
    for index in range(400):
        (project / "images" / f"more{index}.png").write_text("x")
    run(project)
    found = make_plan(load_recipe(project), Store(project / ".edgeft")).certifiable
    assert found.n == 403
    # (1.645 + 1.282)^2 * p / n under a root, in points: Nam 1997.
    assert found.margins_pp["0.01"] == pytest.approx(100 * (8.564 * 0.01 / 403) ** 0.5, abs=0.01)
    assert "403 images" in found.detail
    assert "2 pp" in found.detail


def test_the_estimate_is_that_of_the_nearest_earlier_run(project: Path) -> None:
    store = run(project)
    for path in (store.cache / "store").glob("*/meta.json"):
        meta = json.loads(path.read_text())
        meta["seconds"] = 10.0 if meta["components"]["method"] == "finetune/gradual" else 1.0
        path.write_text(json.dumps(meta))
    plan = make_plan(load_recipe(project, ["finetune.lr=1"]), store)
    assert plan.rows[1].seconds == 10.0
    assert plan.seconds == 16.0


def test_the_plan_prints_the_recipe_with_every_default(project: Path) -> None:
    found = make_plan(load_recipe(project), Store(project / ".edgeft")).recipe
    assert found["finetune"]["pause"] == 0.0
    bar = {"metric": "accuracy", "max_drop_pp": 2.0, "max_drop_from_teacher_pp": None}
    assert found["verify"]["accuracy"] == bar
    assert found["bundle"]["name"] == "My-Parts"
    json.dumps(found, allow_nan=False)


def test_smoke_tries_every_candidate_but_keeps_the_gate(project: Path) -> None:
    listed = {stage.name: stage for stage in stages(load_recipe(project, smoke=True), Store(project / ".edgeft"))}
    assert listed["compress"].config_json()["max_drop_pp"] == 100.0
    assert make_plan(load_recipe(project, smoke=True), Store(project / ".edgeft")).certifiable is None
    assert load_recipe(project, smoke=True).verify.accuracy.max_drop_pp == 2.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.source=nowhere", "data.source: .*nowhere does not exist"),
        ("data.images=nowhere", "data.images: .*nowhere is not a folder"),
        ("model.weights=w.pth", "model.weights: .*w.pth is neither a file"),
    ],
)
def test_a_missing_file_is_named_before_anything_runs(project: Path, override: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_plan(load_recipe(project, [override]), Store(project / ".edgeft"))


def test_a_number_that_is_not_finite_is_refused(project: Path) -> None:
    with pytest.raises(UsageError, match="finetune: a number is not finite"):
        make_plan(load_recipe(project, ["finetune.lr=nan"]), Store(project / ".edgeft"))


def test_an_unknown_target_gets_the_nearest(project: Path) -> None:
    with pytest.raises(UsageError, match="'onx'") as caught:
        make_plan(load_recipe(project, ["lower.targets=[onx]"]), Store(project / ".edgeft"))
    assert "'onnx'" in caught.value.hint


@pytest.mark.parametrize("cross", [True, False])
def test_a_build_is_for_what_runs_its_bundle(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    cross: bool,  # noqa: FBT001
) -> None:
    toy_exporter = catalog.resolve("toy_room:ToyExporter")
    monkeypatch.setattr(toy_exporter, "cross", cross)
    runtime = "onnxruntime" if cross else "another"  # either alone is enough
    monkeypatch.setattr(toy_exporter, "fingerprint", lambda _: {"runtime": runtime})
    with pytest.raises(UsageError, match=r"lower\.targets: onnx comes first, .* must run here and in onnxruntime"):
        make_plan(load_recipe(project), Store(project / ".edgeft"))


@pytest.mark.parametrize(("limit", "said"), [(0.5, "as it must for"), (0.05, "too few for")])
def test_a_limit_of_decisions_is_held_against_validation(project: Path, limit: float, said: str) -> None:
    recipe = load_recipe(project, [f"decide={{method: threshold, max_escape: {limit}}}"])
    found = list(_limits(recipe, {"counts": {"val": {"ok": 30, "bad": 3, "worse": 4}}, "ok_class": "ok"}))
    assert found == [f"validation has 7 bad parts, {said} decide.max_escape {limit:g} ({round(1 / limit) - 1})"]


def test_bundles_of_further_targets_are_no_data(project: Path) -> None:
    recipe = load_recipe(project, ["data.source=.", "data.images=images", "lower.targets=[onnx, openvino]"])

    def digest() -> str:
        return source_digests(recipe, project / ".edgeft").of(project)

    before = digest()
    for name in ("My-Parts", "My-Parts-openvino", "My-Parts-openvino.failed"):
        (project / "dist" / name).mkdir(parents=True)
        (project / "dist" / name / "manifest.json").write_text(name)
    assert digest() == before
    (project / "dist" / "mine.csv").write_text("a")
    assert digest() != before

"""The samples' recipes are what the recipe room accepts."""

from pathlib import Path
from typing import Any

import pytest

from edgeft.core.errors import UsageError
from edgeft.core.store import Store
from edgeft.recipe.load import load_recipe
from edgeft.recipe.plan import make_plan
from edgeft.recipe.reasons import _recipe_key
from edgeft.recipe.stage import Stage
from edgeft.recipe.stages import stages

SAMPLES = sorted((Path(__file__).parents[3] / "samples").glob("*/recipe.yaml"))
(SOLAR_CELLS,) = [path for path in SAMPLES if path.parent.name == "solar_cells"]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("smoke", [False, True])
def test_a_sample_recipe_is_accepted(path: Path, smoke: bool) -> None:  # noqa: FBT001 - a table
    recipe = load_recipe(path, smoke=smoke)
    assert recipe.bundle.name == path.parent.name.replace("_", "-")
    assert recipe.smoke is smoke


def test_before_anything_ran_the_plan_tells_what_the_solar_cells_can_certify(tmp_path: Path) -> None:
    plan = make_plan(load_recipe(SOLAR_CELLS), Store(tmp_path / "cache"))
    assert plan.certifiable is not None
    assert plan.certifiable.n == 512  # 16 of 82 blocks of 32 cells
    assert plan.certifiable.asked_pp >= plan.certifiable.margins_pp["0.02"]
    assert not (tmp_path / "cache").exists()


def test_compress_depends_on_the_device_only_where_it_searches(tmp_path: Path) -> None:
    def compress(*overrides: str, smoke: bool = False) -> Stage:
        recipe = load_recipe(SOLAR_CELLS, (*overrides, "verify.latency.threads=2"), smoke=smoke)
        return next(stage for stage in stages(recipe, Store(tmp_path)) if stage.name == "compress")

    plain, searching = compress(), compress("compress.search=true")
    assert (plain.per_device, plain.config_json()["threads"]) == (False, 1)
    assert (searching.per_device, searching.config_json()["threads"]) == (True, 2)
    assert not compress("compress.search=true", smoke=True).per_device


def test_training_of_int8_follows_the_teacher_that_the_student_had(tmp_path: Path) -> None:
    def listed(*overrides: str) -> dict[str, Stage]:
        block = "distill={prune: 0.3, teachers: 2, student: {input: {height: 192, width: 192}}}"
        recipe = load_recipe(SOLAR_CELLS, (block, *overrides))
        return {stage.name: stage for stage in stages(recipe, Store(tmp_path))}

    plain, following = listed(), listed("compress.follow=teacher", "distill.device=cpu")
    assert "answers" not in plain
    assert "answers" not in plain["compress"].upstream
    assert following["answers"].upstream == following["distill"].upstream
    assert following["answers"].config_json() == {"device": "cpu"}
    assert following["compress"].upstream["answers"] == "answers"
    names = list(following)
    assert names.index("distill") < names.index("answers") < names.index("compress")


def test_a_student_by_name_reads_images_as_it_was_pretrained(tmp_path: Path) -> None:
    def listed(student: str, *overrides: str) -> dict[str, Stage]:
        recipe = load_recipe(SOLAR_CELLS, (f"distill={{student: {student}}}", *overrides))
        return {stage.name: stage for stage in stages(recipe, Store(tmp_path))}

    def read(stage: Stage) -> Any:  # noqa: ANN401 - JSON
        return stage.config_json()["input"]

    other = listed("{base: timm/mobilenetv3_small_100}")
    assert read(other["data"])["mean"] != read(other["teacher_data"])["mean"]
    assert other["distill"].upstream["teacher_data"] == "teacher_data"
    assert "teacher_data" not in listed("{base: timm/tf_efficientnet_lite0}")
    smaller = listed("{base: timm/mobilenetv3_small_100}", "model.input={height: 128, width: 128}")
    assert {read(smaller[name])["height"] for name in ("data", "teacher_data")} == {128}
    alike = "model.input={resize: squash, mean: [127, 127, 127], std: [128, 128, 128], filter: bilinear}"
    assert read(listed("{base: timm/mobilenetv3_small_100}", alike)["data"])["mean"][0] == pytest.approx(123.675)
    cropped = ("model.base=timm/tf_efficientnet_lite4", "model.weights=null", "model.input={resize: shorter_side}")
    assert read(listed("{base: timm/mobilenetv3_small_100}", *cropped)["data"])["resize_to"] == 256
    large = ("model.base=timm/resnet18", "model.weights=null", "model.input={resize: shorter_side}")
    assert read(listed("{base: timm/efficientnet_b3}", *large)["data"])["resize_to"] >= 288


def test_a_margin_from_the_teacher_needs_one(tmp_path: Path) -> None:
    def verify(*overrides: str) -> Any:  # noqa: ANN401 - JSON
        recipe = load_recipe(SOLAR_CELLS, ("verify.accuracy.max_drop_from_teacher_pp=1.5", *overrides))
        found = {stage.name: stage for stage in stages(recipe, Store(tmp_path))}
        return found["verify"].config_json()["max_drop_from_teacher_pp"]

    assert verify("distill={prune: 0.3}") == 1.5
    with pytest.raises(UsageError, match="max_drop_from_teacher_pp: the recipe has no distill block"):
        verify()


def test_candidates_are_quantized_as_the_recipe_says(tmp_path: Path) -> None:
    blocks = ("distill={student: auto, budget_ms: 5}", "compress.precision=fp16")
    recipe = load_recipe(SOLAR_CELLS, blocks)
    (propose,) = [stage for stage in stages(recipe, Store(tmp_path)) if stage.name == "propose"]
    assert propose.config_json()["compress"] == {"precision": "fp16"}


def test_a_student_learns_the_task_that_its_teacher_was_tuned_to(tmp_path: Path) -> None:
    def distill(*overrides: str) -> Any:  # noqa: ANN401 - JSON
        recipe = load_recipe(SOLAR_CELLS, ("finetune.class_weights=balanced", "finetune.metric=auroc", *overrides))
        return {stage.name: stage for stage in stages(recipe, Store(tmp_path))}["distill"].config_json()

    found = distill("distill={prune: 0.3}")
    assert (found["class_weights"], found["metric"]) == ("balanced", "auroc")
    assert found["augment"]
    assert found["label_smoothing"] == 0  # how fast and how hard is its own
    own = distill("distill={prune: 0.3, class_weights: none, augment: []}")
    assert (own["class_weights"], own["metric"], own["augment"]) == ("none", "auroc", [])


def test_a_reason_names_the_recipes_own_key(tmp_path: Path) -> None:
    block = "distill={student: auto, budget_ms: 5, device: cpu}"
    recipe = load_recipe(SOLAR_CELLS, (block, "compress.follow=teacher", "finetune.metric=auroc"))
    found = {stage.name: stage for stage in stages(recipe, Store(tmp_path))}
    for stage, field, key in (
        ("answers", ["device"], "distill.device"),
        ("distill", ["metric"], "finetune.metric"),
        ("distill", ["epochs"], "distill.epochs"),
        ("propose", ["compress", "follow"], "compress.follow"),
        ("propose", ["distill", "epochs"], "distill.epochs"),
        ("verify", ["metric"], "verify.accuracy.metric"),
    ):
        assert _recipe_key(found[stage], field) == key

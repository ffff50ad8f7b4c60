"""What a recipe of texts, or one that leaves adapters, becomes."""

import json
from pathlib import Path

import pytest

from edgeft.core.errors import DataError, UsageError
from edgeft.core.store import Store
from edgeft.recipe.load import load_recipe
from edgeft.recipe.stage import Stage
from edgeft.recipe.stages import stages


@pytest.fixture
def project(tmp_path: Path, toy_encoder: Path) -> Path:
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (encoder / name).write_bytes((toy_encoder / name).read_bytes())
    (encoder / "tokenizer.json").write_text("{}")
    (tmp_path / "r.csv").write_text("text,label\na,b\n")
    (tmp_path / "recipe.yaml").write_text(
        "version: 1\ndata: {source: r.csv}\nmodel: {base: transformers, weights: ./encoder, text: {max_length: 16}}\n"
    )
    return tmp_path


def listed(project: Path, *overrides: str) -> dict[str, Stage]:
    recipe = load_recipe(project, overrides)
    return {stage.name: stage for stage in stages(recipe, Store(project / ".edgeft"))}


def test_texts_are_the_default_of_an_encoder(project: Path) -> None:
    found = listed(project)
    assert found["data"].method.name == "text"
    assert dict(found["data"].sources) == {
        "source": project / "r.csv",
        "tokenizer": project / "encoder" / "tokenizer.json",
    }
    described = {"max_length": 16, "prefix": "", "pad_id": 0, "has_types": True}
    described |= {"vocabulary": "all", "vocabulary_margin": 0.25}
    assert found["data"].config_json()["input"] == described
    assert dict(found["finetune"].sources) == {"weights": project / "encoder"}
    assert found["verify"].sources == {}


def test_texts_go_to_every_target(project: Path) -> None:
    found = listed(project, "lower.targets=[onnx, openvino, tensorrt]")
    for target in ("openvino", "tensorrt"):
        assert found[f"compress-{target}"].config_json()["target"] == target
        assert found[f"compress-{target}"].config_json()["precision"] == "int8"


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_adapters_are_merged_in_a_stage_of_their_own(project: Path, method: str) -> None:
    plain, adapted = (listed(project, f"finetune={{method: {each}}}") for each in ("full", method))
    assert "merge" not in plain
    names = list(adapted)
    assert names[names.index("finetune") + 1] == "merge"
    assert adapted["merge"].method.name == method
    for name in ("export", "verify"):
        assert plain[name].upstream["checkpoint"] == "finetune"
        assert adapted[name].upstream["checkpoint"] == "merge"


@pytest.mark.parametrize(
    ("overrides", "error", "why"),
    [
        (["data.method=images"], UsageError, "data.method: images, and transformers takes texts"),
        (
            ["model={base: timm/resnet18}", "data.method=text"],
            UsageError,
            "data.method: text, and timm/resnet18 takes images",
        ),
        (["model.weights=./gone"], DataError, "gone is not a folder"),
        (["model.text.max_length=64"], UsageError, "has 32 positions"),
        (["data.images=x"], UsageError, "unknown key data.images"),
    ],
)
def test_what_does_not_go_together_is_refused(
    project: Path, overrides: list[str], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        listed(project, *overrides)


def test_a_student_stands_between_its_teacher_and_the_export(project: Path) -> None:
    block = "distill={student: {layers: 1}, temperature: 2.0}"
    found = listed(project, block, "finetune.method=lora")
    names = list(found)
    assert names[names.index("merge") + 1] == "distill"
    assert found["distill"].upstream == {"data": "data", "checkpoint": "merge"}
    assert found["distill"].config_json()["model"]["base"] == "transformers"
    assert found["export"].upstream["checkpoint"] == found["verify"].upstream["checkpoint"] == "distill"
    assert listed(project, block, "finetune.method=full")["distill"].upstream["checkpoint"] == "finetune"
    assert "distill" not in listed(project)


@pytest.mark.parametrize(
    ("block", "error", "why"),
    [
        ("{student: {base: transformers, weights: gone.pth}}", DataError, r"distill\.student\.weights: .*gone\.pth"),
        ("{student: {layers: 1}, temprature: 2}", UsageError, r"unknown key distill\.temprature"),
        ("{method: hints, student: {layers: 1}}", UsageError, r"no distill method is called 'hints'"),
        ("{temperature: 2}", UsageError, r"distill: student: give layers, hidden"),
        ("{student: {base: transformers, weights: ./gone}}", DataError, "gone is no folder"),
    ],
)
def test_a_wrong_distill_block_is_refused(project: Path, block: str, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        listed(project, f"distill={block}")


def test_several_teachers_are_the_same_tuning_with_other_seeds(project: Path) -> None:
    found = listed(project, "distill={student: {layers: 1}, teachers: 3}", "finetune.method=lora")
    assert {name: found[name].seed_offset for name in found if name.startswith(("finetune", "merge"))} == {
        "finetune": 0,
        "merge": 0,
        "finetune-2": 1,
        "merge-2": 1,
        "finetune-3": 2,
        "merge-3": 2,
    }
    assert found["merge-3"].upstream == {"data": "data", "finetune": "finetune-3"}
    checkpoints = {"checkpoint": "merge", "checkpoint-2": "merge-2", "checkpoint-3": "merge-3"}
    assert found["distill"].upstream == {"data": "data", **checkpoints}
    assert found["finetune-2"].config_json() == found["finetune"].config_json()


def test_a_student_that_is_left_open_is_proposed_first(project: Path) -> None:
    found = listed(project, "distill={student: auto, budget_ms: 4}")
    names = list(found)
    assert names[names.index("propose") + 1] == "distill"
    assert found["propose"].per_device
    assert found["propose"].config_json()["distill"] == found["distill"].config_json()
    assert found["distill"].upstream == {**found["propose"].upstream, "proposal": "propose"}


def test_a_text_student_by_name_brings_its_teachers_tokenizer(project: Path) -> None:
    found = listed(project, "distill={student: {base: transformers, weights: ./encoder}}")
    encoder = project / "encoder"
    assert dict(found["distill"].sources) == {"student": encoder, "tokenizer": encoder / "tokenizer.json"}
    with pytest.raises(UsageError, match=r"distill\.student: .*a text encoder needs weights"):
        listed(project, "distill={student: {base: transformers}}")


def test_candidates_by_name_bring_their_weights(project: Path) -> None:
    candidates = "[{student: {layers: 1}}, {student: {base: transformers, weights: ./encoder}}]"
    found = listed(project, f"distill={{student: auto, budget_ms: 5, candidates: {candidates}}}")
    encoder = project / "encoder"
    expected = {"student-2": encoder, "tokenizer": encoder / "tokenizer.json"}
    assert dict(found["distill"].sources) == dict(found["propose"].sources) == expected
    with pytest.raises(DataError, match=r"distill\.candidates\.0\.student\.weights: .*gone is no folder"):
        listed(
            project,
            "distill={student: auto, budget_ms: 5, candidates: [{student: {base: transformers, weights: ./gone}}]}",
        )


def test_rows_without_labels_are_a_source_of_the_data(project: Path) -> None:
    (project / "more.csv").write_text("text\nsome\n")
    block = "distill={student: {layers: 1}}"
    found = listed(project, "data.unlabelled=more.csv", block)
    assert found["data"].sources["unlabelled"] == project / "more.csv"
    with pytest.raises(DataError, match=r"data\.unlabelled: .*gone\.csv does not exist"):
        listed(project, "data.unlabelled=gone.csv", block)
    with pytest.raises(UsageError, match="only a student learns from rows without labels"):
        listed(project, "data.unlabelled=more.csv")


def test_a_student_that_reads_smaller_images_has_data_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    recipe = "data: {source: ./images}\nmodel: {base: timm/resnet18, input: {resize: squash}}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    changed = "distill={prune: 0.3, student: {input: {height: 160, width: 160}}}"
    plain, found = listed(tmp_path, "distill={prune: 0.3}"), listed(tmp_path, changed)
    assert "teacher_data" not in plain
    assert found["teacher_data"].config_json() == plain["data"].config_json()
    own = found["data"].config_json()["input"]
    assert own == {**plain["data"].config_json()["input"], "height": 160, "width": 160}
    wide = "model.input={resize: shorter_side, resize_to: 280}"  # the student sees the same part of each picture
    own = listed(tmp_path, wide, changed)["data"].config_json()["input"]
    assert (own["resize"], own["resize_to"], own["height"]) == ("shorter_side", 200, 160)
    alone = "distill={prune: 0.3, student: {input: {height: '280', width: null}}}"  # as a text; null is the model's own
    own = listed(tmp_path, wide, alone)["data"].config_json()["input"]
    assert (own["resize_to"], own["height"], own["width"]) == (350, 280, 224)
    straight = "distill={prune: 0.3, student: {input: {height: 160, resize: squash}}}"
    assert listed(tmp_path, wide, straight)["data"].config_json()["input"]["resize_to"] is None
    with pytest.raises(UsageError, match=r"distill\.student: base: String should match pattern"):
        listed(tmp_path, "distill={student: {base: resnet18, input: {height: 160, width: 160}}}")
    with pytest.raises(UsageError, match=r"distill\.student: base: String should match pattern"):
        listed(tmp_path, "distill={student: {base: resnet18}}")
    assert found["finetune"].upstream == {"data": "teacher_data"}
    assert found["merge"].upstream == {"data": "teacher_data", "finetune": "finetune"}
    roles = {"data": "data", "teacher_data": "teacher_data", "checkpoint": "merge"}
    assert found["distill"].upstream == roles
    assert found["export"].upstream["data"] == found["verify"].upstream["data"] == "data"


def test_the_schema_knows_all_of_it() -> None:
    from edgeft.recipe.schema import json_schema

    schema = json_schema()
    text = json.dumps(schema)
    assert list(schema["properties"]) == [
        "version", "seed", "data", "model", "finetune", "distill",
        "export", "compress", "lower", "decide", "verify", "bundle",
    ]  # fmt: skip
    for word in ("first_n_frozen", "bitfit", "lora", "ia3", "threshold", "max_escape", "slices", "max_length"):
        assert f'"{word}"' in text


def test_a_targets_runtime_is_in_the_keys_of_its_stages(project: Path) -> None:
    found = listed(project, "lower.targets=[onnx, openvino]", "compress.precision=fp16")
    assert all(
        "openvino" in found[f"{name}-openvino"].method.needs for name in ("compress", "choose", "lower", "verify")
    )
    assert "openvino" not in found["verify"].method.needs


def test_the_int8_of_texts_follows_no_teacher(project: Path) -> None:
    with pytest.raises(UsageError, match=r"compress\.follow: is for images"):
        listed(project, "distill={student: {layers: 1}}", "compress.follow=teacher")
    with pytest.raises(UsageError, match=r"compress\.follow: teacher, and the recipe has no distill block"):
        listed(project, "compress.follow=teacher")
    with pytest.raises(UsageError, match="follow: teacher is for int8 that is trained: method qat, or auto"):
        listed(project, "distill={student: {layers: 1}}", "compress.follow=teacher", "compress.method=gptq")

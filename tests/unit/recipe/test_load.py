"""From a file to a checked recipe: every mistake is named with key, line, what was found and what was expected."""

from pathlib import Path
from typing import get_args

import pytest

from edgeft.core.errors import DeviceError, UsageError
from edgeft.data.config import DataConfig
from edgeft.recipe.load import load_recipe
from edgeft.recipe.model import Metric
from edgeft.recipe.paths import locate
from edgeft.recipe.schema import json_schema
from edgeft.recipe.smoke import shrink
from edgeft.verify.accuracy import METRICS


def refused(project: Path, text: str, *overrides: str) -> UsageError:
    if text:
        (project / "recipe.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_recipe(project, overrides)
    return caught.value


GOOD = "version: 1\ndata: {source: images}\nmodel: {base: timm/tf_efficientnet_lite0}\n"


def test_a_recipe_is_read_with_its_defaults(project: Path) -> None:
    recipe = load_recipe(project)
    assert recipe.finetune.method.name == "gradual"
    assert recipe.finetune.values == {"epochs": 2, "lr": 0.001}
    assert (recipe.seed, recipe.verify.accuracy.max_drop_pp, recipe.lower.targets) == (0, 2.0, ("onnx",))
    assert recipe.name == "My-Parts"
    assert load_recipe(project / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (GOOD + "finetun: {}\n", "recipe.yaml line 4: unknown key finetun", "did you mean 'finetune'?"),
        (GOOD + "xyz: {}\n", "recipe.yaml line 4: unknown key xyz", "a recipe knows: "),
        (GOOD + "finetune:\n  epoch: 3\n", "recipe.yaml line 5: unknown key finetune.epoch", "did you mean 'epochs'?"),
        (
            GOOD.replace("images}", "images, split: {trian: 1}}"),
            "recipe.yaml line 2: unknown key data.split.trian",
            "did you mean 'train'?",
        ),
        (
            GOOD + "verify:\n  latency: {vs_fp32: quicker}\n",
            "recipe.yaml line 5: verify.latency.vs_fp32: expected 'faster' or 'not_slower', found 'quicker' (text)",
            None,
        ),
        (
            GOOD + "finetune:\n  epochs: many\n",
            "recipe.yaml line 5: finetune.epochs: expected a whole number, found 'many' (text)",
            None,
        ),
        (
            GOOD + "finetune:\n  epochs: [1]\n",
            "recipe.yaml line 5: finetune.epochs: expected a whole number, found [1] (a list)",
            None,
        ),
        (GOOD + "finetune: 3\n", "recipe.yaml line 4: finetune: expected a mapping of keys, found 3", None),
        (GOOD + "verify: [1]\n", "recipe.yaml line 4: verify: expected a mapping of keys, found [1]", None),
        (
            GOOD.replace("images}", "images, split: 3}"),
            "recipe.yaml line 2: data.split: expected a mapping of keys, found 3 (a whole number)",
            None,
        ),
        (
            GOOD + "finetune:\n  method: gradul\n",
            "recipe.yaml line 5: no finetune method is called",
            "did you mean 'gradual'?",
        ),
        (GOOD + "finetune:\n  method: 3\n", "recipe.yaml line 5: finetune.method: expected text, found 3", None),
        (GOOD + "finetune:\n  model: {}\n", "recipe.yaml line 5: finetune.model is filled in by edgeft", "remove it"),
        (GOOD.replace("version: 1", "version: 2"), "recipe.yaml line 1: version: expected 1, found 2", None),
        (GOOD + "seed: -1\n", "recipe.yaml line 4: seed: input should be greater than or equal to 0, found -1", None),
        ("version: 1\nmodel: {base: timm/x}\n", "recipe.yaml: data is missing", "add a line such as"),
        ("data: {source: x}\n", "recipe.yaml: model is missing", "add a line such as"),
        (GOOD.replace("source: images", "ok_class: a"), "recipe.yaml line 2: data.source is missing", None),
        (GOOD.replace("timm/tf_", "nowhere/"), "recipe.yaml line 3: model.base: string should match", None),
        (GOOD + "lower: {targets: [onnx, onnx]}\n", "recipe.yaml line 4: lower.targets: ", None),
        (GOOD + "bundle: {name: ../up}\n", "recipe.yaml line 4: bundle.name: ", None),
    ],
)
def test_a_mistake_is_named(project: Path, text: str, message: str, hint: str | None) -> None:
    error = refused(project, text)
    assert error.message.startswith(message)
    assert (error.hint or "").startswith(hint or "")


def test_every_mistake_of_a_block_is_told_at_once(project: Path) -> None:
    error = refused(project, GOOD + "finetune:\n  epochs: x\n  lr: y\n  typo: 1\n")
    assert [line.split(":")[0] for line in error.message.splitlines()] == [f"recipe.yaml line {n}" for n in (5, 6, 7)]


def test_a_mistake_on_the_command_line_is_named_as_such(project: Path) -> None:
    assert refused(project, "", "finetune.epochs=x").message.startswith("--set finetune.epochs=x: finetune.epochs: ")


def test_a_file_that_is_no_text_is_named(project: Path) -> None:
    (project / "recipe.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not YAML: byte 0 is no UTF-8" in refused(project, "").message


def test_nothing_there_is_named(project: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml: cannot be read"):
        load_recipe(project / "nowhere.yaml")


def test_a_folder_of_bare_data_gets_the_default_recipe(project: Path) -> None:
    recipe = load_recipe(project / "images")
    assert recipe.data.values == {"source": "."}
    assert recipe.folder == project / "images"
    assert recipe.model.base == "timm/tf_efficientnet_lite0"


def test_smoke_shrinks_what_there_is_to_shrink(project: Path) -> None:
    recipe = load_recipe(project, ["finetune.epochs=30"], smoke=True)
    assert recipe.data.values["limit"] == 40
    assert shrink("data", {"unlabelled_limit": 9}, DataConfig) == {"limit": 40, "unlabelled_limit": 9}
    assert recipe.finetune.values["epochs"] == 1
    assert recipe.compress.values == {}
    assert len(recipe.verify.latency.rounds) == 1
    assert load_recipe(project, ["data.limit=5"], smoke=True).data.values["limit"] == 5


def test_the_recipe_knows_the_metrics_that_verify_knows() -> None:
    assert get_args(Metric) == METRICS


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    assert locate("a/b.csv", tmp_path, key="k") == tmp_path / "a/b.csv"
    assert locate("/abs", tmp_path, key="k") == Path("/abs")


def test_a_package_resource_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_data").mkdir()
    (tmp_path / "heavy_data/__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    found = locate("package:heavy_data/labels.csv", Path("/elsewhere"), key="data.source")
    assert found == tmp_path / "heavy_data/labels.csv"


@pytest.mark.parametrize("text", ["package:heavy_data/../x", "package:/x", "package:a-b/x"])
def test_a_package_resource_stays_in_its_package(text: str) -> None:
    with pytest.raises(UsageError, match=r"data\.source"):
        locate(text, Path(), key="data.source")


def test_a_missing_package_names_the_pip_command() -> None:
    with pytest.raises(DeviceError, match="no_such_data") as caught:
        locate("package:no_such_data/x.csv", Path(), key="data.source")
    assert caught.value.hint == "pip install no-such-data"


@pytest.mark.usefixtures("toys")
def test_the_schema_knows_every_method_and_hides_what_the_engine_fills_in() -> None:
    schema = json_schema()
    branches = {branch["properties"]["method"]["const"]: branch for branch in schema["properties"]["finetune"]["oneOf"]}
    assert set(branches) == {"gradual", "frozen"}
    assert "depth" in branches["frozen"]["properties"]
    assert branches["frozen"]["required"] == ["method"]
    assert all("model" not in branch["properties"] for branch in branches.values())
    assert "input" not in schema["properties"]["data"]["properties"]
    assert schema["properties"]["data"]["properties"]["split"]["$ref"] == "#/$defs/data.images.SplitConfig"
    assert "#/$defs/verify.LatencyBar" in str(schema)
    assert set(schema["required"]) == {"data", "model"}

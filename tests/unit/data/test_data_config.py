import subprocess
import sys

import pytest
from pydantic import ValidationError

from edgeft.config import Config
from edgeft.data.augment_config import PRESETS, AugmentSpec, Blur, HorizontalFlip, Rotate90
from edgeft.data.config import DataConfig


class Holder(Config):
    augment: AugmentSpec = ()


def test_reading_configs_imports_nothing_heavy() -> None:
    code = (
        "import sys, edgeft.data.config, edgeft.data.augment_config;"
        "print([m for m in ('numpy', 'torch', 'PIL', 'scipy', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"split": {"train": 0.6, "val": 0.3, "test": 0.2}}, "train + val + test = 1.1, expected 1"),
        ({"split": {"train": 0.8, "val": 0.2, "test": 0.0}}, "greater than 0"),
        ({"split": {"folds": 3, "fold": 3}}, "fold 3 of 3 folds: expected 0 .. 2"),
        ({"classes": ["a", "b", "a"]}, "a class stands twice"),
        ({"limit": "many"}, "valid integer"),
        ({"limit": {"training": 0.5}}, "'train', 'val' or 'test'"),
        ({"limit": {"train": 100}}, "less than 1"),
        ({"colums": {}}, "Extra inputs"),
        ({"delimiter": "--"}, "at most 1 character"),
    ],
)
def test_bad_values(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DataConfig.model_validate({"source": "x", **values})
    assert message in str(caught.value)


def test_the_short_forms_of_augment() -> None:
    written = ["horizontal_flip", {"blur": {"sigma": [0.5, 1.0]}}, {"rotate90": None}]
    parsed = Holder.model_validate({"augment": written}).augment
    assert parsed == (HorizontalFlip(p=0.5), Blur(sigma=(0.5, 1.0)), Rotate90())
    assert Holder.model_validate({"augment": "inspection"}).augment == PRESETS["inspection"]
    assert Holder.model_validate({"augment": "none"}).augment == ()


def test_a_parsed_spec_survives_json() -> None:
    spec = Holder.model_validate({"augment": ["crop", {"colour": {"hue": 0.1}}]})
    assert Holder.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (["horizontal_flop"], "did you mean horizontal_flip"),
        ("inspektion", "did you mean inspection"),
        ([{"blur": {"p": 2}}], "less than or equal to 1"),
        ([{"blur": {"kernel_size": 4}}], "4 is even"),
        ([{"crop": {"scale": [1.0, 0.5]}}], "the first value is above the second"),
        ([{"crop": {"skale": [0.5, 1.0]}}], "Extra inputs"),
        ([{"crop": 3}], "crop: expected parameters"),
        ([{"crop": {}, "blur": {}}], "each step is one name"),
    ],
)
def test_bad_augmentations(augment: object, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"augment": augment})
    assert message in str(caught.value)


def test_the_schema_describes_what_is_written() -> None:
    schema = Holder.model_json_schema()["properties"]["augment"]
    assert {"enum": ["none", "inspection"]} in schema["anyOf"]
    steps = schema["anyOf"][1]["items"]["anyOf"]
    assert (
        "kernel_size" in next(s for s in steps if "blur" in s.get("properties", {}))["properties"]["blur"]["properties"]
    )

"""What a teacher answers: the logits of its checkpoint for the rows that are learned from, of several their mean."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from edgeft.core.errors import DataError
from edgeft.core.stage import Context, StageResult
from edgeft.data.answers import Answers
from edgeft.data.dataset import Dataset
from edgeft.distill.answers import run
from edgeft.distill.config import AnswersConfig
from edgeft.models.predict import logits
from edgeft.testing.taught import Taught


def asked(folder: Path, inputs: dict[str, Path]) -> StageResult:
    for each in ("out", "workspace"):
        (folder / each).mkdir(parents=True)
    context = Context(folder / "out", folder / "workspace", seed=0, threads=1)
    return run(context, inputs, AnswersConfig(device="cpu"))


def test_the_answers_are_the_teachers_own_and_of_several_their_mean(images: Taught, tmp_path: Path) -> None:
    given = {"data": images.data, "checkpoint": images.teacher}
    dataset = Dataset.open(images.data)
    rows = dataset.studied()
    student = images.distill(tmp_path / "other", {"base": "timm/test_efficientnet"}, epochs=1).folder
    told = [logits(folder, dataset.part(rows), 1) for folder in (images.teacher, student)]
    found = asked(tmp_path / "one", given)
    answers = Answers.open(found.folder)
    assert found.measurements["rows"] == len(rows)
    np.testing.assert_array_equal(answers.rows, rows)
    np.testing.assert_allclose(answers.logits, told[0], atol=1e-4)
    both = Answers.open(asked(tmp_path / "two", {**given, "checkpoint-2": student}).folder)
    mean = logsumexp([log_softmax(each, axis=1) for each in told], axis=0) - np.log(2)
    np.testing.assert_allclose(both.logits, mean, atol=1e-4)


def test_an_incomplete_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.npy: missing"):
        Answers.open(tmp_path)

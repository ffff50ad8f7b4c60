"""`edgeft predict`: lines for people and pipes, objects for scripts; nothing skipped."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeft.bundle.check import CheckResult
from edgeft.cli.main import app
from edgeft.core.errors import DataError, IntegrityError
from edgeft.runtime.predictor import Prediction

RUNNER = CliRunner()


class _Predictor:
    """Decides by file name; refuses "bad.png"."""

    classes = ("defective", "functional")
    takes_texts = False

    def predict(self, images: Sequence[Path]) -> list[Prediction]:
        return [self._one(image) for image in images]

    def _one(self, image: Path) -> Prediction:
        if image.name == "bad.png":
            raise DataError(f"{image}: the image cannot be decoded")
        scores = (0.75, 0.25) if image.stem.startswith("d") else (0.0625, 0.9375)
        return Prediction(self.classes[scores[0] < 0.5], int(scores[0] < 0.5), scores, image, "review" in image.stem)


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    asked: list[int] = []

    def load(bundle: Path, threads: int, public_key: Path | None) -> _Predictor:
        del bundle, public_key
        asked.append(threads)
        return _Predictor()

    monkeypatch.setattr("edgeft.runtime.load", load)
    return asked


def test_one_line_per_image(threads: list[int]) -> None:
    result = RUNNER.invoke(app, ["predict", "bundle", "a/d1.png", "f 2.png", "--threads", "2"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "a/d1.png\tdefective\t0.7500\nf 2.png\tfunctional\t0.9375\n"
    assert threads == [2]


def test_a_part_for_review_says_so() -> None:
    result = RUNNER.invoke(app, ["predict", "bundle", "d1.png", "d-review.png"])
    assert result.stdout.splitlines() == ["d1.png\tdefective\t0.7500", "d-review.png\tdefective\t0.7500\tREVIEW"]


def test_one_object() -> None:
    result = RUNNER.invoke(app, ["predict", "bundle", "d1.png", "--json"])
    assert json.loads(result.stdout) == {
        "status": "ok",
        "exit_code": 0,
        "bundle": "bundle",
        "predictions": [
            {
                "path": "d1.png",
                "label": "defective",
                "index": 0,
                "score": 0.75,
                "review": False,
                "scores": {"defective": 0.75, "functional": 0.25},
            }
        ],
    }


def test_an_unreadable_image_ends_the_command() -> None:
    result = RUNNER.invoke(app, ["predict", "bundle", "d1.png", "bad.png"])
    assert result.exit_code == 3
    assert result.stdout == "d1.png\tdefective\t0.7500\n"
    assert "bad.png" in result.stderr


def test_under_json_an_unreadable_image_gives_one_error_object() -> None:
    result = RUNNER.invoke(app, ["predict", "bundle", "d1.png", "bad.png", "--json"])
    assert result.exit_code == 3
    assert "bad.png" in json.loads(result.stdout)["message"]


CHECKED = CheckResult(
    bundle="out/cells",
    name="cells",
    target="onnx",
    precision="int8",
    content_digest="0123abcd",
    files=7,
    golden_rows=16,
    raw_rows=4,
    max_abs_score_error=1.5e-6,
    atol=0.02,
    raw_inputs_equal=True,
    signature="none",
    notes=("a note",),
)


def test_verify_says_what_it_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeft.bundle.check.check", lambda bundle, threads, public_key: CHECKED)  # noqa: ARG005 - the signature
    result = RUNNER.invoke(app, ["verify", "out/cells"])
    assert result.exit_code == 0, result.stderr
    said = ("out/cells: ok", "int8 for onnx", "0123abcd", "16 golden vectors", "4 of them", "1.5e-06", "0.02", "a note")
    for needle in said:
        assert needle in result.stdout
    answer = json.loads(RUNNER.invoke(app, ["verify", "out/cells", "--json"]).stdout)
    assert (answer["status"], answer["content_digest"], answer["golden_rows"]) == ("ok", "0123abcd", 16)


def test_verify_exits_8_and_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(bundle: Path, threads: int, public_key: Path | None) -> CheckResult:
        del threads, public_key
        raise IntegrityError(f"{bundle}/model.onnx: sha256 00..., expected ff...", hint="copy it again")

    monkeypatch.setattr("edgeft.bundle.check.check", damaged)
    result = RUNNER.invoke(app, ["verify", "out/cells", "--json"])
    assert result.exit_code == 8
    assert "model.onnx" in json.loads(result.stdout)["message"]


def test_verify_of_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    assert RUNNER.invoke(app, ["verify", str(tmp_path)]).exit_code == 8
    assert RUNNER.invoke(app, ["verify", str(tmp_path / "nowhere")]).exit_code == 4

"""The verb `quantize`: its options, what it prints, and how bad input ends it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from edgeft.cli.main import app

RUNNER = CliRunner()


@pytest.fixture
def files(tmp_path: Path, make_foreign: Callable[..., Any], rows_of: Callable[..., Any]) -> list[str]:
    """The arguments of a run that times nothing."""
    model = make_foreign()
    onnx.save(model, tmp_path / "net.onnx")
    x, labels = rows_of(model, 24)
    np.savez(tmp_path / "data.npz", x=x, labels=labels)
    return ["quantize", str(tmp_path / "net.onnx"), "--calib", str(tmp_path / "data.npz"), "--no-latency"]


def test_help_names_every_option_and_exit_code() -> None:
    result = RUNNER.invoke(app, ["quantize", "--help"])
    assert result.exit_code == 0
    options = ("--calib", "--eval", "--target", "--max-drop-pp", "--method", "--images", "--mean", "--std")
    for option in (
        *options,
        "--input-shape",
        "--search",
        "--float-share",
        "--out",
        "--threads",
        "--no-latency",
        "--strict",
        "--json",
    ):
        assert option in result.stdout
    assert "5 more than the margin is lost" in " ".join(result.stdout.split())


def test_json_is_one_object_and_the_table_goes_to_stderr(files: list[str], tmp_path: Path) -> None:
    result = RUNNER.invoke(app, [*files, "--eval", str(tmp_path / "data.npz"), "--max-drop-pp", "20", "--json"])
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["status"] == "passed"
    assert Path(answer["model"]) == tmp_path / "net-quantized" / "model.onnx"
    assert Path(answer["model"]).is_file()
    assert Path(answer["report"]).is_file()
    assert [item["name"] for item in answer["candidates"]] == ["fp32", "int8"]
    assert answer["gates"][0]["name"] == "accuracy int8"
    for word in ("candidate", "accuracy", "drop, pp", "SQNR, dB", "size", "verdict"):
        assert word in result.stderr
    assert "median, ms" not in result.stderr  # nothing was timed


def test_without_json_stdout_holds_the_path_of_the_model(files: list[str], tmp_path: Path) -> None:
    result = RUNNER.invoke(app, [*files, "--out", str(tmp_path / "there")])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'there' / 'model.onnx'}\n"
    assert "accuracy was not measured" in result.stderr


def test_what_was_not_measured_is_an_error_under_strict(files: list[str]) -> None:
    assert RUNNER.invoke(app, [*files, "--strict"]).exit_code == 7


@pytest.mark.parametrize(
    ("extra", "code", "said"),
    [
        (["--eval", "gone.npz"], 3, "gone.npz"),
        (["--target", "onnxx"], 2, "'onnx'"),
        (["--method", "mean"], 2, "--method"),
        (["--mean", "a,b"], 2, "--mean 'a,b'"),
        (["--mean", "nan", "--std", "1"], 2, "finite"),
        (["--input-shape", "3,0,8"], 2, "--input-shape '3,0,8'"),
        (["--images", "0"], 2, "--images"),
        (["--float-share", "1.5"], 2, "--float-share"),
        (["--max-drop-pp", "0"], 2, "--max-drop-pp"),
        (["--calbi", "x"], 2, "--calib"),
    ],
)
def test_bad_options_end_with_a_message(files: list[str], extra: list[str], code: int, said: str) -> None:
    result = RUNNER.invoke(app, [*files, *extra, "--json"])
    assert result.exit_code == code
    answer = json.loads(result.stdout)
    assert (answer["status"], answer["exit_code"]) == ("error", code)
    assert said in f"{answer['message']} {answer['hint']}"


def test_calibration_data_is_asked_for(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["quantize", str(tmp_path / "net.onnx")])
    assert result.exit_code == 2
    assert "--calib" in result.stderr

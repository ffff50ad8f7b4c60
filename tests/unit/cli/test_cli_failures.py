"""Every way in which a verb can end badly: message, hint, exit code, and the object under --json."""

import errno
import json

import pytest
import typer
from typer.testing import CliRunner

from edgeft.cli.failure import describe
from edgeft.cli.group import Verbs
from edgeft.cli.options import JsonFlag
from edgeft.core.errors import DataError, DeviceError, EdgeftError, IntegrityError, UsageError

RUNNER = CliRunner()


def _app(error: BaseException) -> typer.Typer:
    app = typer.Typer(cls=Verbs, rich_markup_mode=None, add_completion=False)

    @app.callback()
    def root() -> None:
        """Nothing."""

    @app.command()
    def go(as_json: JsonFlag = False) -> None:  # noqa: FBT002 - a verb's flag
        del as_json
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EdgeftError("x"), 1),
        (UsageError("x"), 2),
        (DataError("x"), 3),
        (DeviceError("x"), 4),
        (IntegrityError("x"), 8),
        (KeyboardInterrupt(), 130),
        (RuntimeError("x"), 1),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 4),
        (OSError(errno.EROFS, "Read-only file system", "/data/x"), 4),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), 4),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 4),
        (ModuleNotFoundError("No module named 'sklearn.svm'", name="sklearn.svm"), 4),
        (ModuleNotFoundError("No module named 'nobody'", name="nobody"), 1),
    ],
)
def test_each_error_has_its_exit_code_in_text_and_json(error: BaseException, code: int) -> None:
    plain = RUNNER.invoke(_app(error), ["go"])
    assert plain.exit_code == code
    assert plain.stdout == ""
    assert plain.stderr.startswith("error: ")
    told = RUNNER.invoke(_app(error), ["go", "--json"])
    assert told.exit_code == code
    assert json.loads(told.stdout)["exit_code"] == code
    assert json.loads(told.stdout)["status"] == "error"


def test_an_edgeft_error_shows_its_message_and_hint() -> None:
    result = RUNNER.invoke(_app(DataError("cells/7.png is empty", hint="restore it")), ["go", "--json"])
    assert result.stderr == "error: cells/7.png is empty\nhint: restore it\n"
    assert json.loads(result.stdout) == {
        "status": "error",
        "exit_code": 3,
        "message": "cells/7.png is empty",
        "hint": "restore it",
    }


def test_ctrl_c_claims_no_resumption_where_nothing_is_kept() -> None:
    hint = describe(KeyboardInterrupt(), "quantize net.onnx --calib c.npz").hint
    assert hint == "nothing half-done is left; `edgeft quantize net.onnx --calib c.npz` starts anew"


def test_ctrl_c_names_the_command_that_resumes() -> None:
    result = RUNNER.invoke(_app(KeyboardInterrupt()), ["go"])
    assert "edgeft go" in result.stderr
    assert "resume" in result.stderr


def test_a_missing_library_names_the_extra_that_brings_it() -> None:
    result = RUNNER.invoke(_app(ModuleNotFoundError("No module named 'timm'", name="timm")), ["go"])
    assert "timm" in result.stderr
    assert "pip install 'edgeft[train]'" in result.stderr


def test_a_full_disk_names_the_file() -> None:
    result = RUNNER.invoke(_app(OSError(errno.ENOSPC, "No space left on device", "/data/x")), ["go"])
    assert "/data/x" in result.stderr
    assert "No space left" in result.stderr
    assert "--cache" in result.stderr


def test_an_unexpected_error_is_one_line_without_traceback() -> None:
    result = RUNNER.invoke(_app(ZeroDivisionError("a\nb")), ["go"])
    assert result.stderr.splitlines()[0] == "error: internal error: ZeroDivisionError: a b"
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("where", [["--traceback", "go"], ["go", "--traceback"]])
def test_the_traceback_is_shown_on_request(where: list[str]) -> None:
    assert "Traceback (most recent call last)" in RUNNER.invoke(_app(ZeroDivisionError("x")), where).stderr


def test_the_traceback_is_shown_where_the_environment_asks_for_it() -> None:
    app = _app(ZeroDivisionError("x"))
    assert "Traceback" in RUNNER.invoke(app, ["go"], env={"EDGEFT_TRACEBACK": "1"}).stderr
    assert "Traceback" not in RUNNER.invoke(app, ["go"], env={"EDGEFT_TRACEBACK": "0"}).stderr

"""The root command: verbs, options, help, suggestions."""

import json

import pytest
from typer.testing import CliRunner

from edgeft import __version__
from edgeft.cli.main import app

RUNNER = CliRunner()
VERBS = (
    *("build", "plan", "lr-find", "merge", "quantize", "verify", "bench", "compare"),
    *("predict", "serve", "inspect", "activate", "rollback", "targets", "runs", "doctor", "schema", "init"),
)
DEVICES = ("add", "ls", "check", "rm")


def test_help_lists_every_verb() -> None:
    result = RUNNER.invoke(app, ["--help"])
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.stdout.partition("Commands:")[2].splitlines() if line.strip()]
    assert sorted(listed) == sorted((*VERBS, "devices"))
    assert "..." not in result.stdout.partition("Commands:")[2]  # no first sentence is cut off


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_json(verb: str) -> None:
    result = RUNNER.invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.stdout


@pytest.mark.parametrize("verb", DEVICES)
def test_every_verb_of_devices_takes_json(verb: str) -> None:
    result = RUNNER.invoke(app, ["devices", verb, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.stdout


def test_version() -> None:
    result = RUNNER.invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"{__version__}\n")


def test_no_verb_shows_help_on_stderr_and_fails() -> None:
    result = RUNNER.invoke(app, [])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Commands:" in result.stderr


@pytest.mark.parametrize(("typed", "meant"), [("buidl", "build"), ("verfy", "verify"), ("doctr", "doctor")])
def test_an_unknown_verb_suggests_the_nearest(typed: str, meant: str) -> None:
    result = RUNNER.invoke(app, [typed, "--json"])
    assert result.exit_code == 2
    assert f"'{meant}'" in json.loads(result.stdout)["message"]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["build", ".", "--somke"], "--smoke"),
        (["plan", ".", "--jsno"], "--json"),
        (["build", ".", "--no-latnecy"], "--no-latency"),
    ],
)
def test_an_unknown_option_suggests_the_nearest(arguments: list[str], meant: str) -> None:
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 2
    assert meant in result.stderr


def test_a_missing_argument_is_named() -> None:
    result = RUNNER.invoke(app, ["verify", "--json"])
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert "BUNDLE" in answer["message"]
    assert answer["hint"] == "`edgeft verify --help` shows what it takes"


def test_a_wrong_value_names_the_option() -> None:
    result = RUNNER.invoke(app, ["predict", "bundle", "image.png", "--threads", "0"])
    assert result.exit_code == 2
    assert "--threads" in result.stderr


def test_schema_is_printed_as_it_is_and_wrapped_under_json() -> None:
    plain = json.loads(RUNNER.invoke(app, ["schema"]).stdout)
    assert {"data", "model", "finetune", "compress", "verify", "bundle"} <= set(plain["properties"])
    assert json.loads(RUNNER.invoke(app, ["schema", "--json"]).stdout) == {
        "status": "ok",
        "exit_code": 0,
        "schema": plain,
    }

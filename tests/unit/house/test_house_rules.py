"""House rules that no linter of ours checks, and the ones that import-linter does."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import edgeft

REPOSITORY = Path(__file__).parents[3]
SOURCES = sorted([*(REPOSITORY / "edgeft").rglob("*.py"), *(REPOSITORY / "exporters").rglob("*.py")])
LONGEST_MODULE = 400
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py"}
WAIVER = re.compile(r"# (?:noqa(?:: [A-Z]+[0-9]+(?:, [A-Z]+[0-9]+)*)?|type: ignore(?:\[[^\]]*\])?)(?P<reason>.*)$")


def _named(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def test_import_contracts_hold() -> None:
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert edgeft.__version__ == project["version"]


@pytest.mark.parametrize("path", SOURCES, ids=_named)
def test_modules_are_short_and_well_named(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_MODULE
    assert path.name not in FORBIDDEN_NAMES


@pytest.mark.parametrize("path", [path for path in SOURCES if "cli" not in path.parts], ids=_named)
def test_library_code_neither_prints_nor_reads_the_environment(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{_named(path)}:{node.lineno} prints"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in {"environ", "getenv"}, f"{_named(path)}:{node.lineno} reads the environment"


def test_test_files_have_unique_names() -> None:
    names = Counter(path.name for path in (REPOSITORY / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", SOURCES, ids=_named)
def test_every_waiver_has_a_reason_in_its_line(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        for waiver in WAIVER.finditer(line):
            assert waiver["reason"].strip(" #-:"), f"{_named(path)}:{number} waives a check without a reason"

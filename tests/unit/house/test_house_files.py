"""The repository's own files: CI's script, make's targets, the index of decisions."""

import os
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


def test_the_ci_script_is_executable_bash() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True, timeout=10)


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("demo", "edgeft build samples/solar_cells"),
        ("test", "-m pytest"),
        ("test-slow", "-m pytest -m slow"),
        ("check", "lint-imports"),
    ],
)
def test_make_knows_its_targets(target: str, command: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", target], capture_output=True, text=True, check=True, cwd=REPOSITORY, timeout=30
    )
    assert command in done.stdout


def test_demo_and_tests_install_what_the_readme_says() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    assert "--editable '.[train,samples]'" in makefile
    assert "--editable '.[train,samples,dev]'" in makefile


def test_the_index_lists_every_decision() -> None:
    folder = REPOSITORY / "docs" / "adr"
    index = (folder / "README.md").read_text()
    numbered = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert re.findall(r"\((\d{4}-[a-z0-9-]+\.md)\)", index.partition("| number")[2]) == numbered[1:]
    assert numbered[0] == "0000-template.md"

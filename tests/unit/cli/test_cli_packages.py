"""What is installed against what the metadata asks for; what the processor means for int8."""

import json
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

from edgeft.cli import diagnosis
from edgeft.cli.diagnosis import int8_arithmetic
from edgeft.cli.main import app
from edgeft.cli.packages import Package, within


@pytest.mark.parametrize("bounds", [">=1.26", "==0.1.0", ">=1.0.0.post1", ">=2.9,>=2.11", "", ">=17"])
@pytest.mark.parametrize("version", ["0.1.0", "1.26.0", "1.9.1", "2.10.0", "2.11", "17.0.1", "26.0.1", "2.14.1+cpu"])
def test_bounds_agree_with_packaging(version: str, bounds: str) -> None:
    assert within(version, bounds) == SpecifierSet(bounds).contains(version)


@pytest.mark.parametrize("isa", [["avx2", "avx512bw", "avx512_vnni"], ["asimddp"], ["avx2"], []])
@pytest.mark.parametrize("saturating", [True, False])
def test_what_was_measured_is_said_whatever_the_instruction_set(isa: list[str], saturating: bool) -> None:  # noqa: FBT001
    said = int8_arithmetic(isa, saturating=saturating)
    assert ("saturating 16 bits" in said) == saturating
    assert ("are exact" in said) == (not saturating)
    assert ("gain less" in said) == (isa in (["avx2"], []))


def _installed(monkeypatch: pytest.MonkeyPatch, *packages: Package) -> None:
    monkeypatch.setattr(diagnosis, "required", lambda: packages)


def test_doctor_is_content_where_the_base_is_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _installed(
        monkeypatch,
        Package("numpy", "base", ">=1.26", "2.4.6", fits=True),
        Package("torch", "train", ">=2.9", None, fits=False),
        Package("ruff", "dev", ">=0.9", None, fits=False),
    )
    result = CliRunner().invoke(app, ["doctor", "--json", "--cache", str(tmp_path)])
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["status"], answer["problems"]) == (0, "ok", [])
    assert answer["missing"] == [{"extra": "train", "packages": ["torch"], "command": "pip install 'edgeft[train]'"}]
    assert answer["cache"]["path"] == str(tmp_path)
    text = CliRunner().invoke(app, ["doctor", "--cache", str(tmp_path)]).stdout
    assert "verify and predict can run here; build needs pip install 'edgeft[train]'" in text
    assert "ruff" not in text


def test_doctor_exits_4_where_the_base_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _installed(monkeypatch, Package("onnxruntime", "base", ">=1.23", "1.10.0", fits=False))
    result = CliRunner().invoke(app, ["doctor", "--cache", str(tmp_path)])
    assert result.exit_code == 4
    assert "problem: onnxruntime 1.10.0, wanted >=1.23: pip install edgeft" in result.stdout


def test_doctor_says_how_to_get_package_metadata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _installed(monkeypatch)
    result = CliRunner().invoke(app, ["doctor", "--cache", str(tmp_path)])
    assert result.exit_code == 4
    assert "pip install -e ." in result.stdout

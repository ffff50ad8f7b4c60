"""docs/adding-an-exporter.md, followed to the letter: the page's exporter is installed, found, and takes the exam."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from edgeft import catalog
from edgeft.cli.main import app
from edgeft.core.exporter import Exporter
from edgeft.testing.exporter_cases import CASES, ExporterCase

PAGE = Path(__file__).parents[3] / "docs" / "adding-an-exporter.md"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exporter]:
    site = tmp_path / "site"
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for language, text in blocks:
        named = re.match(r"# (toy_exporter/\w+\.py)\n", text)
        if language == "python" and named:
            (site / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (site / named[1]).write_text(text)
    (toml,) = [text for language, text in blocks if language == "toml"]
    info = site / "toy_exporter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-exporter\nVersion: 1.0\n")
    name, target = re.findall(r'^(\w+) = "(.+)"$', toml, re.MULTILINE)[0]
    (info / "entry_points.txt").write_text(f"[edgeft.exporters]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    yield catalog.exporter("toy")
    for module in [module for module in sys.modules if module.partition(".")[0] == "toy_exporter"]:
        del sys.modules[module]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_page_passes_the_exam(case: ExporterCase, toy: Exporter, tmp_path: Path) -> None:
    folder = tmp_path / "exam"
    folder.mkdir()
    case.check(toy, folder)


@pytest.mark.usefixtures("toy")
def test_quantize_finds_it(tmp_path: Path, make_foreign: Callable[..., Any], rows_of: Callable[..., Any]) -> None:
    model = make_foreign()
    onnx.save(model, tmp_path / "net.onnx")
    x, labels = rows_of(model, 24)
    np.savez(tmp_path / "data.npz", x=x, labels=labels)
    data = str(tmp_path / "data.npz")
    verb = ["quantize", str(tmp_path / "net.onnx"), "--calib", data, "--eval", data, "--target", "toy", "--no-latency"]
    result = CliRunner().invoke(app, [*verb, "--out", str(tmp_path / "out"), "--max-drop-pp", "20", "--json"])
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / "model.onnx").is_file()


def test_without_it_the_target_is_unknown(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["quantize", str(tmp_path / "net.onnx"), "--calib", "x.npz", "--target", "toy"])
    assert result.exit_code == 2
    assert "no exporter is called 'toy'" in result.stderr

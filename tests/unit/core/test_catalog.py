"""The catalog: listing imports nothing, a typo gets the nearest names, what is broken is listed."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from edgeft import catalog
from edgeft.core.errors import DeviceError, UsageError
from edgeft.core.stage import Method

Points = dict[str, list[EntryPoint]]


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Iterator[Points]:
    listed: Points = {"edgeft.methods": [], "edgeft.exporters": []}
    monkeypatch.setattr(catalog, "entry_points", lambda group: listed[group])
    catalog._third_party.cache_clear()
    yield listed
    catalog._third_party.cache_clear()


def test_a_typo_gets_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="no finetune method is called 'gradul'") as caught:
        catalog.find("finetune", "gradul")
    assert "'gradual'" in caught.value.hint


def test_what_trains_int8_is_part_of_its_key() -> None:
    assert "torch" in catalog.find("compress", "auto").needs


def test_every_exporter_is_a_lowering(points: Points) -> None:
    points["edgeft.exporters"] = [EntryPoint("npu", "vendor.npu:Exporter", "edgeft.exporters")]
    assert catalog.find("lower", "npu").run == "edgeft.pipeline.lower:run"
    with pytest.raises(UsageError, match="'npx'") as caught:
        catalog.exporter("npx")
    assert "'npu'" in caught.value.hint


def test_a_broken_entry_point_is_listed_with_its_reason(points: Points) -> None:
    points["edgeft.methods"] = [EntryPoint("theirs", "no_such_module:METHOD", "edgeft.methods")]
    (found,) = catalog.broken()
    assert found.name == "theirs"
    assert "no_such_module" in found.reason
    with pytest.raises(UsageError, match=r"cannot be imported.*no_such_module"):
        catalog.find("finetune", "theirs")


def test_an_entry_point_that_is_no_method_is_listed(points: Points) -> None:
    points["edgeft.methods"] = [EntryPoint("odd", "math:pi", "edgeft.methods")]
    assert "math:pi is not a Method" in catalog.broken()[0].reason


@pytest.mark.usefixtures("points")
def test_a_duplicate_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = Method("finetune", "full", "a:C", "a:run", 1)
    monkeypatch.setattr(catalog, "METHODS", (*catalog.METHODS, twice))
    with pytest.raises(UsageError, match="finetune/full"):
        catalog.methods()


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import surely_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError, match="surely_not_installed") as caught:
        catalog.resolve("needs_more:run")
    assert "edgeft[train]" in caught.value.hint


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from edgeft import catalog; catalog.methods(); "
        "print([m for m in ('torch', 'timm', 'numpy', 'onnx', 'onnxruntime', 'PIL', 'pydantic') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

"""What a CI server is told: files that were asked for, annotations, the job's summary."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from edgeft.cli.ci import JOB_SUMMARY, tell
from edgeft.cli.main import app
from edgeft.core.errors import DeviceError

NOTHING: dict[str, Any] = {"junit": None, "summary": None, "github": False}


@pytest.fixture(autouse=True)
def outside_of_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(JOB_SUMMARY, raising=False)


@pytest.fixture
def record() -> dict[str, Any]:
    gate = {"name": "latency", "value": 1.3, "interval": [1.2, 1.4], "limit": 1.05, "unit": "ratio", "n": 18}
    gates = [{**gate, "verdict": "FAIL", "detail": "too slow", "exit_code": 6}]
    return {"kind": "compare", "name": "b against a", "status": "failed", "exit_code": 6, "gates": gates, "notes": []}


def test_files_are_written_where_they_were_asked_for(tmp_path: Path, record: dict[str, Any]) -> None:
    tell(record, **{**NOTHING, "junit": tmp_path / "new" / "gates.xml", "summary": tmp_path / "gates.md"})
    root = ET.parse(tmp_path / "new" / "gates.xml").getroot()  # noqa: S314 - our own document
    assert (root.tag, root.get("tests"), root.get("failures")) == ("testsuites", "1", "1")
    assert (tmp_path / "gates.md").read_text().startswith("## b against a: FAIL\n")


def test_nothing_is_told_that_was_not_asked_for(
    tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(JOB_SUMMARY, str(tmp_path / "job.md"))
    tell(record, **NOTHING)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_the_jobs_summary_is_added_to(
    tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.md"
    job.write_text("from the step before\n")
    monkeypatch.setenv(JOB_SUMMARY, str(job))
    for _ in range(2):
        tell(record, **{**NOTHING, "github": True})
    text = job.read_text()
    assert text.startswith("from the step before\n## b against a: FAIL\n")
    assert text.count("## b against a: FAIL") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(" title=")[0] for line in err.splitlines()] == ["::error"] * 2


def test_outside_of_github_there_is_no_job_to_tell(
    record: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in (None, ""):
        if value is not None:
            monkeypatch.setenv(JOB_SUMMARY, value)
        tell(record, **{**NOTHING, "github": True})
        assert capsys.readouterr().err.startswith("::error title=")
    assert list(tmp_path.iterdir()) == []


def test_gates_that_pass_print_no_line(record: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    record["gates"][0]["verdict"] = "PASS"
    tell(record, **{**NOTHING, "github": True})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("option", ["junit", "summary"])
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, record: dict[str, Any], option: str) -> None:
    (tmp_path / "file").write_text("no folder")
    for place in (tmp_path / "file" / "gates", tmp_path):
        with pytest.raises(DeviceError, match="cannot be written") as caught:
            tell(record, **{**NOTHING, option: place})
        assert str(place) in caught.value.message


def test_a_job_summary_that_cannot_be_written_is_named(
    tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (tmp_path, tmp_path / "gone" / "job.md"):
        monkeypatch.setenv(JOB_SUMMARY, str(place))
        with pytest.raises(DeviceError, match="cannot be written") as caught:
            tell(record, **{**NOTHING, "github": True})
        assert str(place) in caught.value.message


@pytest.mark.parametrize("verb", ["build", "quantize", "compare"])
def test_every_verb_with_gates_can_tell_a_ci_server(verb: str) -> None:
    result = CliRunner().invoke(app, [verb, "--help"])
    assert result.exit_code == 0
    for option in ("--junit", "--summary", "--github"):
        assert option in result.stdout

"""Events on stderr: one plain line per stage for logs, bars on a terminal."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress

from edgeft.cli.progress import LiveBars, PlainLines, narrate
from edgeft.core.events import Message, Progress, StageFinished, StageStarted


def test_a_log_gets_one_line_per_stage_and_every_message(capsys: pytest.CaptureFixture[str]) -> None:
    sink = PlainLines()
    sink(StageStarted("finetune", "runs because finetune.lr changed 0.1 -> 0.2"))
    sink(Progress("epoch", 1, 8, "loss 0.4"))
    sink(Message("2 images are unreadable", warning=True))
    sink(StageFinished("finetune", reused=False, seconds=12.34))
    sink(StageFinished("data", reused=True, seconds=0.01))
    captured = capsys.readouterr()
    assert captured.out == ""
    warning, finetune, data = captured.err.splitlines()
    assert warning == "warning: 2 images are unreadable"
    assert finetune.split(maxsplit=4) == ["finetune", "ran", "12.3", "s", "runs because finetune.lr changed 0.1 -> 0.2"]
    assert data.split() == ["data", "reused", "0.0", "s"]


def test_bars_come_with_progress_and_go_with_the_stage() -> None:
    text = io.StringIO()
    with RichProgress(console=Console(file=text, width=100), auto_refresh=False) as progress:
        sink = LiveBars(progress)
        sink(StageStarted("finetune", "first run"))
        sink(Progress("epochs", 2, 8, "loss 0.4"))
        shown = {task.description: (task.completed, task.total) for task in progress.tasks}
        assert shown["epochs"] == (2, 8)
        sink(Progress("epochs", 8, 8))
        assert [task.description for task in progress.tasks] == ["finetune"]
        sink(StageFinished("finetune", reused=False, seconds=5.0))
        assert progress.tasks == []
    assert "first run" in text.getvalue()


def test_without_a_terminal_lines_are_plain() -> None:
    with narrate() as sink:
        assert isinstance(sink, PlainLines)

"""Events of long work on stderr: live bars with time left on a terminal, one plain line per stage elsewhere."""

import contextlib
import sys
from collections.abc import Iterator

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from edgeft.cli.tables import seconds
from edgeft.core import events


@contextlib.contextmanager
def narrate() -> Iterator[events.EventSink]:
    """Yield a sink that shows events on stderr while the block runs."""
    if not sys.stderr.isatty():
        yield PlainLines()
        return
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        _Count(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        yield LiveBars(progress)


class _Count(ProgressColumn):
    """Units done of all, or the time since the start where there is nothing to count."""

    def render(self, task: Task) -> Text:
        """Return what stands in the task's row."""
        if task.total is None:
            return Text(seconds(task.elapsed or 0))
        return Text(f"{task.completed:.0f}/{task.total:.0f}")


class PlainLines:
    """One line per finished stage, and every message: for logs."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def __call__(self, event: events.Event) -> None:
        """Show `event`."""
        match event:
            case events.StageStarted(stage, reason):
                self._reasons[stage] = reason
            case events.StageFinished():
                typer.echo(stage_line(event, self._reasons.get(event.stage, "")), err=True)
            case events.Message():
                typer.echo(message_line(event), err=True)
            case events.Progress():
                pass


class LiveBars:
    """A bar per running task; finished stages and messages scroll above."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}
        self._reasons: dict[str, str] = {}

    def __call__(self, event: events.Event) -> None:
        """Show `event`."""
        match event:
            case events.StageStarted(stage, reason):
                self._reasons[stage] = reason
                self._clear()
                self._bars[stage] = self._progress.add_task(stage, total=None, text=reason)
            case events.StageFinished():
                self._clear()
                self._progress.console.print(stage_line(event, self._reasons.get(event.stage, "")))
            case events.Message():
                self._progress.console.print(message_line(event))
            case events.Progress(task, done, total, text):
                if task not in self._bars:
                    self._bars[task] = self._progress.add_task(task, total=total, text=text)
                self._progress.update(self._bars[task], completed=done, total=total, text=text)
                if done >= total:
                    self._progress.remove_task(self._bars.pop(task))

    def _clear(self) -> None:
        for bar in self._bars.values():
            self._progress.remove_task(bar)
        self._bars.clear()


def stage_line(event: events.StageFinished, reason: str) -> str:
    """Return e.g. "finetune    ran       312.4 s   finetune.lr changed"."""
    state = "reused" if event.reused else "ran"
    return f"{event.stage:<19} {state:<6} {event.seconds:8.1f} s   {reason}".rstrip()


def message_line(event: events.Message) -> str:
    """Return the message, with "warning: " before a warning."""
    return f"warning: {event.text}" if event.warning else event.text

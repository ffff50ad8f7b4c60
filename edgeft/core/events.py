"""What library code tells about long work: events to a sink; the command line decides how they look."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of `task`; `text` is a short live detail such as "loss 0.41"."""

    task: str
    done: int
    total: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: the learning rate it was taken with, and the mean loss before it."""

    lr: float
    loss: float


@dataclass(frozen=True, slots=True)
class Message:
    """One line for the user."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins; `reason` says why it runs."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class StageFinished:
    """A stage ended, or was reused (then `seconds` is the time the look-up took)."""

    stage: str
    reused: bool
    seconds: float


Event = Progress | Step | Message | StageStarted | StageFinished
EventSink = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Drop `event`."""
    del event

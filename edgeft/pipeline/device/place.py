"""Where a build times its candidates and proves its bundle: on this machine, or on a device that OpenSSH reaches."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgeft.core import machine
from edgeft.core.errors import DeviceError, UsageError
from edgeft.core.events import EventSink, Message, ignore
from edgeft.core.place import Place
from edgeft.core.stage import Json
from edgeft.pipeline.device.address import LOCAL, Device
from edgeft.pipeline.device.needs import lacks

if TYPE_CHECKING:
    from edgeft.recipe.stage import Stage
    from edgeft.runtime.worker import Request, Timing

_TIMED_THERE = frozenset({"choose", "propose"})
"""Kinds of stages that depend on the device and time their models where they are told to."""
_KEPT = ("cpu", "architecture", "isa", "cores")


class BuildPlace(Place, Protocol):
    """What a build asks of the machine that it measures on."""

    def require(self, stages: "Sequence[Stage]", *, texts: bool) -> None:
        """Refuse what cannot be measured there, before anything runs."""

    def fingerprint(self) -> Mapping[str, Json] | None:
        """Return what a cache key holds of it; None is this machine, whose facts a key holds anyway."""

    def facts(self) -> dict[str, Json]:
        """Return what a reader must know of the machine that was measured on."""


def asked(place: BuildPlace, stages: "Sequence[Stage]", *, texts: bool) -> Mapping[str, Json] | None:
    """Return the fingerprint of `place`, once it has refused what cannot be measured there; see `BuildPlace`."""
    place.require(stages, texts=texts)
    return place.fingerprint()


class Here:
    """This machine."""

    def require(self, stages: "Sequence[Stage]", *, texts: bool) -> None:
        """Refuse nothing: what is missing here shows by itself."""

    def fingerprint(self) -> None:
        """Return None."""

    def facts(self) -> dict[str, Json]:
        """Return this machine's facts."""
        return machine.facts()

    def launching(self, requests: "Sequence[Request]") -> "AbstractContextManager[Callable[[Request], Timing]]":
        """Give `edgeft.runtime.launch.launch`."""
        from edgeft.runtime.launch import launch

        del requests
        return nullcontext(launch)


@dataclass(slots=True)
class There:
    """A device that OpenSSH reaches.

    Args:
        device: its address.
        emit: where its events go.
        told: its facts, once it was asked.
    """

    device: Device
    emit: EventSink = ignore
    told: dict[str, Any] = field(default_factory=dict)

    def require(self, stages: "Sequence[Stage]", *, texts: bool) -> None:
        """Ask the device what it is, and refuse what cannot be measured there.

        Raises:
            DeviceError: it cannot be reached, or lacks something.
            UsageError: a stage times its models on this machine alone.
        """
        from edgeft.pipeline.device.remote import facts

        for stage in stages:
            self._require_timed_there(stage)

        self.told = facts(self.device)
        if missing := lacks(self.told["libraries"], texts=texts):
            raise DeviceError(
                f"{self.device.text}: {self.told['executable']} there lacks {', '.join(missing)}",
                hint="install it there, or name another interpreter: ssh://host/path/to/python",
            )
        self.emit(Message(f"device: {self.device.text}, {self.told['cpu']}, {self.told['cores']} cores"))

    def _require_timed_there(self, stage: "Stage") -> None:
        from edgeft.pipeline.timed import own_runtime

        if not stage.per_device:
            return
        kind = stage.method.kind
        if kind not in _TIMED_THERE:
            raise UsageError(
                f"--device {self.device.text}: {stage.name} times parts of a graph on this machine alone",
                hint=f"leave the search out: --set {kind}.search=false",
            )
        target = stage.config_json().get("target")
        if isinstance(target, str) and own_runtime(target) is not None:
            raise UsageError(
                f"--device {self.device.text}: models are timed there in onnxruntime alone, not as {target}",
                hint="lower.targets: [onnx], or build on the device itself",
            )

    def fingerprint(self) -> dict[str, Json]:
        """Return its processor, and the runtime that it has."""
        runtime = {"runtime": "onnxruntime", "version": self.told["libraries"]["onnxruntime"]}
        return {**{name: self.told[name] for name in _KEPT}, "runtime": runtime}

    def facts(self) -> dict[str, Json]:
        """Return its facts, with its address."""
        return {"device": self.device.text, **self.told}

    def replay(self, bundle: Path) -> tuple[dict[str, Any], float]:
        """Return the check of `bundle` there, and how many seconds it took.

        Raises:
            IntegrityError: it decides something else there.
            DeviceError: the device cannot be reached any more.
        """
        from edgeft.pipeline.device.remote import check

        began = time.perf_counter()
        return check(bundle, self.device, emit=self.emit), time.perf_counter() - began

    def launching(self, requests: "Sequence[Request]") -> "AbstractContextManager[Callable[[Request], Timing]]":
        """Give what times one of `requests` there."""
        from edgeft.pipeline.device.remote import launching

        return launching(self.device, requests, self.emit)


HERE = Here()


def place_of(text: str, ssh_config: Path | None, emit: EventSink = ignore) -> BuildPlace:
    """Return the machine that `text` names: local, or ssh://...

    Raises:
        UsageError: it is neither.
    """
    return HERE if text == LOCAL else There(Device.parse(text, ssh_config), emit)

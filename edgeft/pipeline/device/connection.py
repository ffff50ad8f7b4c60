"""One job on a device, over one connection: an archive of edgeft's own code, files and job.json goes in, then lines.

The device tells every second that it is alive, so a machine that vanishes is an error within seconds, and a device
whose line was cut ends what it was doing.
"""

import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any, Final, Self

from edgeft.core.errors import DeviceError
from edgeft.core.events import EventSink, ignore
from edgeft.core.lines import error_of, event_of, object_of
from edgeft.pipeline.device.address import Device

SILENCE_S: Final = 20.0
"""A device that tells nothing for so long has vanished; it tells something every second."""
UNPACKING_S: Final = 120.0
"""Before its first word it unpacks what was sent and starts Python, which a slow disk makes long."""
_PACKAGE = Path(__file__).parents[2]
_SENT_SUFFIXES = frozenset({".py", ".json", ".onnx"})
_SENT_ROOMS = frozenset({"bundle", "core", "pipeline", "recipe", "runtime", "verify"})
_NO_CONNECTION = 255
AGAIN = "run the same command again; nothing is left running on the device"


class Connection:
    """A job that runs on a device while this block is open.

    Args:
        device: where.
        job: what the other end does, see `on_device`.
        files: what goes with it: a file or folder here, by its path there.
        emit: where the device's events go.
    """

    def __init__(
        self, device: Device, job: Mapping[str, Any], files: Mapping[str, Path], emit: EventSink = ignore
    ) -> None:
        self._device, self._emit = device, emit
        self._archive = _archive(job, files)
        self._lines: Queue[bytes | None] = Queue()
        self._said: list[bytes] = []
        self._heard = False

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            DeviceError: there is no ssh here.
        """
        try:
            self._process = subprocess.Popen(  # noqa: S603 - an argument list, no shell here
                self._device.command(len(self._archive)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except FileNotFoundError as error:
            raise DeviceError("ssh is not installed here", hint="install OpenSSH's client") from error
        self._sending = _started(lambda: self._write(self._archive))
        self._threads = [self._sending, _started(self._read), _started(self._listen_to_stderr)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """End the job, wherever it stands."""
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join(timeout=SILENCE_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(OSError):  # what was not sent any more
                if pipe is not None:
                    pipe.close()

    def tell(self, line: Mapping[str, Any]) -> None:
        """Send one line to the job."""
        self._sending.join()  # the archive comes first
        self._write(json.dumps(line).encode() + b"\n")

    def answer(self) -> dict[str, Any]:
        """Return what the job tells next that is no event.

        Raises:
            EdgeftError: what was raised there.
            DeviceError: the device cannot be reached, vanished, or lacks something.
        """
        for told in self._told():
            self._heard = True
            if event := event_of(told):
                self._emit(event)
            elif raised := error_of(told, self._device.text, other=DeviceError):
                raise raised
            elif "alive" not in told:
                return told
        raise self._ended()

    def _told(self) -> Iterator[dict[str, Any]]:
        while True:
            limit = SILENCE_S if self._heard else UNPACKING_S
            try:
                line = self._lines.get(timeout=limit)
            except Empty:
                if self._sending.is_alive():
                    continue  # a large model on a slow line
                raise DeviceError(
                    f"{self._device.text}: told nothing for {limit:.0f} s: it vanished",
                    hint=AGAIN,
                ) from None
            if line is None:
                return
            if told := object_of(line):  # else what a shell prints at login
                yield told

    def _ended(self) -> DeviceError:
        """Return why the job ended without an answer."""
        device = self._device
        code = self._process.wait(timeout=SILENCE_S)
        for thread in self._threads:
            thread.join(timeout=SILENCE_S)
        words = b"".join(self._said).decode("utf-8", "replace").strip().splitlines() or ["nothing"]
        if code == _NO_CONNECTION and self._heard:
            return DeviceError(f"{device.text}: the connection broke off: {words[-1]}", hint=AGAIN)
        if code == _NO_CONNECTION:
            return DeviceError(f"{device.text}: no connection: {words[-1]}", hint=f"try: ssh {device.target}")
        needs = "it needs Python 3.11 with numpy, onnxruntime, pillow and pydantic; name it: ssh://host/path/to/python"
        return DeviceError(
            f"{device.text}: ended with {code} and said: {words[-1]}", hint=AGAIN if self._heard else needs
        )

    def _write(self, data: bytes) -> None:
        if self._process.stdin is not None:
            try:
                self._process.stdin.write(data)
                self._process.stdin.flush()
            except OSError:
                return  # the connection is gone: its end says so

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line)
        self._lines.put(None)

    def _listen_to_stderr(self) -> None:
        self._said.extend(self._process.stderr or ())


def _archive(job: Mapping[str, Any], files: Mapping[str, Path]) -> bytes:
    """Return a .tar.gz of edgeft's device rooms, `files` and job.json."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for file in sorted(_PACKAGE.rglob("*")):
            inside = file.relative_to(_PACKAGE)
            if file.suffix in _SENT_SUFFIXES and (len(inside.parts) == 1 or inside.parts[0] in _SENT_ROOMS):
                tar.add(file, f"edgeft/{inside.as_posix()}")
        for inside_name, path in files.items():
            if not path.exists():
                raise DeviceError(f"{path}: no such file or folder")
            tar.add(path.resolve(), inside_name)  # what a link at the top leads to, not the link
        text = json.dumps(job).encode()
        entry = tarfile.TarInfo("job.json")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def _started(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread

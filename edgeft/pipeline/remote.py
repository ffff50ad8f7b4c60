"""`--device ssh://user@host[:port][/path/to/python]`: measure on another machine, over the system's OpenSSH.

One connection carries everything: an archive of edgeft's own code, the model and the job goes in, one JSON line after
the other comes out. Nothing has to be installed on the device but Python 3.11 with the base install's libraries; what
was sent lies in a temporary folder that its shell removes, whatever happens. The device tells every second that it is
alive, so a machine that vanishes is an error within seconds, and a device whose line was cut ends what it was doing.
"""

import io
import json
import re
import shlex
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Final

from edgeft.core.atomic import write_atomic
from edgeft.core.errors import DeviceError, UsageError
from edgeft.core.events import EventSink
from edgeft.core.lines import error_of, event_of, object_of
from edgeft.pipeline.bench import Options
from edgeft.pipeline.subject import GOLDEN_INPUT, NOISE_INPUT

SILENCE_S: Final = 20.0
"""A device that tells nothing for so long has vanished; it tells something every second."""
_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[\w.-]+)@)?(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\])(?::(?P<port>\d+))?(?P<python>/.*)?"
)
_PACKAGE = Path(__file__).parents[1]
_SENT_SUFFIXES = frozenset({".py", ".json", ".onnx"})
_SENT_ROOMS = frozenset({"bundle", "core", "pipeline", "recipe", "runtime", "verify"})
_NO_CONNECTION = 255
_REMOTE = (
    'd=$(mktemp -d "${{TMPDIR:-/tmp}}/edgeft-XXXXXX") || exit 4; trap \'rm -rf "$d"\' EXIT HUP INT TERM; '
    'tar xzf - -C "$d" && cd "$d" && TMPDIR="$d" PYTHONPATH="$d" {python} -m edgeft.pipeline.on_device'
)


@dataclass(frozen=True, slots=True)
class Device:
    """A machine that OpenSSH reaches.

    Args:
        text: as it was given.
        target: what ssh is told, user@host or host.
        port: or None for ssh's own choice.
        python: the interpreter there.
    """

    text: str
    target: str
    port: str | None
    python: str

    @classmethod
    def parse(cls, text: str) -> "Device":
        """Read ssh://[user@]host[:port][/path/to/python].

        Raises:
            UsageError: it is something else.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise UsageError(
                f"--device {text}: expected local, or ssh://user@host[:port][/path/to/python]",
                hint="for example --device ssh://pi@192.168.1.7",
            )
        user, host = found["user"], found["host"].strip("[]")
        return cls(text, f"{user}@{host}" if user else host, found["port"], found["python"] or "python3")

    def command(self, ssh_config: Path | None) -> list[str]:
        """Return the ssh command that reads an archive and runs the job in it; None is the user's own configuration."""
        config = ["-F", str(ssh_config)] if ssh_config else []
        port = ["-p", self.port] if self.port else []
        alive = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
        alive += ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
        return ["ssh", *config, *port, *alive, self.target, _REMOTE.format(python=shlex.quote(self.python))]


def measure(path: Path, options: Options, emit: EventSink) -> dict[str, Any]:
    """Measure `path` on `options.device`; the record and the baseline are those that the device made.

    Raises:
        UsageError: the address is none, or data that lies here is asked for.
        DeviceError: the device cannot be reached, vanishes, or lacks something.
        EdgeftError: what the measurement there raised.
    """
    device = Device.parse(options.device)
    if options.inputs not in (None, GOLDEN_INPUT, NOISE_INPUT) or options.evaluation is not None:
        raise UsageError(
            f"--device {device.text} measures on golden images or texts, or on noise",
            hint="leave --input and --eval out; what a bundle holds goes with it",
        )
    archive = _archive(path, options)
    try:
        started = subprocess.Popen(  # noqa: S603 - an argument list, no shell here
            device.command(options.ssh_config), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise DeviceError("ssh is not installed here", hint="install OpenSSH's client") from error
    with started as process:
        answer = _listen(process, archive, device, emit)
    if raised := error_of(answer, device.text, other=DeviceError):
        raise raised
    if options.baseline is not None:
        write_atomic(options.baseline, str(answer["baseline"]))
    record: dict[str, Any] = answer["record"]
    record["subject"]["path"] = str(path)
    return {**record, "device": device.text, "baseline": None if options.baseline is None else str(options.baseline)}


def _archive(path: Path, options: Options) -> bytes:
    """Return a .tar.gz of edgeft's device rooms, what is measured, and job.json."""
    if not path.exists():
        raise DeviceError(f"{path}: no such file or folder")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for file in sorted(_PACKAGE.rglob("*")):
            inside = file.relative_to(_PACKAGE)
            if file.suffix in _SENT_SUFFIXES and (len(inside.parts) == 1 or inside.parts[0] in _SENT_ROOMS):
                tar.add(file, f"edgeft/{inside.as_posix()}")
        tar.add(path, f"subject/{path.name}")
        kept = {**asdict(options), "device": "local", "ssh_config": None, "evaluation": None, "baseline": None}
        job = {"subject": f"subject/{path.name}", "options": kept, "baseline": options.baseline is not None}
        text = json.dumps(job).encode()
        entry = tarfile.TarInfo("job.json")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def _listen(process: "subprocess.Popen[bytes]", archive: bytes, device: Device, emit: EventSink) -> dict[str, Any]:
    """Send the archive, tell what the device tells, and return its answer."""
    said: list[bytes] = []
    lines: Queue[bytes | None] = Queue()
    threads = [
        _started(_send, process, archive),
        _started(_read, process, lines),
        _started(lambda: said.extend(process.stderr or ())),
    ]
    try:
        for told in _told(lines, device, sent=threads[0]):
            if event := event_of(told):
                emit(event)
            elif "record" in told or "error" in told:
                return told
        process.wait(timeout=SILENCE_S)
    finally:
        process.kill()
        for thread in threads:
            thread.join(timeout=SILENCE_S)
    words = b"".join(said).decode("utf-8", "replace").strip().splitlines() or ["nothing"]
    if process.returncode == _NO_CONNECTION:
        raise DeviceError(f"{device.text}: no connection: {words[-1]}", hint=f"try: ssh {device.target}")
    raise DeviceError(
        f"{device.text}: ended with {process.returncode} and said: {words[-1]}",
        hint="it needs Python 3.11 with numpy, onnxruntime, pillow and pydantic; name it: ssh://host/path/to/python",
    )


def _started(work: Callable[..., object], *given: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=given, daemon=True)
    thread.start()
    return thread


def _send(process: "subprocess.Popen[bytes]", archive: bytes) -> None:
    if process.stdin is not None:
        try:
            process.stdin.write(archive)
            process.stdin.close()
        except OSError:
            return  # the connection is gone: its end says so


def _read(process: "subprocess.Popen[bytes]", lines: "Queue[bytes | None]") -> None:
    for line in process.stdout or ():
        lines.put(line)
    lines.put(None)


def _told(lines: "Queue[bytes | None]", device: Device, *, sent: threading.Thread) -> Iterator[dict[str, Any]]:
    while True:
        try:
            line = lines.get(timeout=SILENCE_S)
        except Empty:
            if sent.is_alive():
                continue  # a large model on a slow line
            raise DeviceError(
                f"{device.text}: told nothing for {SILENCE_S:.0f} s: it vanished", hint="run the same command again"
            ) from None
        if line is None:
            return
        if told := object_of(line):  # else what a shell prints at login
            yield told

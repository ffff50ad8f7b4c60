"""The other end of `--device ssh://...`: runs the job in this folder and tells one JSON object a line.

{"alive": 1}                                        every second
{"progress": {...}}, {"message": {...}}             what the job tells while it works
{"error": ..., "hint": ..., "exit_code": ...}       its last line, where it fails
and what each kind of job in `_JOBS` answers. Where the line is cut, the job and all that it started end: nobody is
left to tell.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any, Final

from edgeft.core.errors import DeviceError, EdgeftError
from edgeft.core.events import Event
from edgeft.core.lines import error_line, event_line, object_of

_BEAT_S = 1.0
_BASELINE = "baseline.json"
_TELLING = threading.Lock()
Asked = Queue[dict[str, Any]]
"""Lines that came after the archive."""


def main() -> int:
    """Run job.json and return the exit code."""
    os.setpgrp()  # so that all of it can be ended at once
    asked = Asked()
    for work in (_beat, partial(_hear, asked)):
        threading.Thread(target=work, daemon=True).start()
    job = json.loads(Path("job.json").read_text(encoding="utf-8"))
    try:
        if job["kind"] != "facts":
            _require_libraries()
        answer = _JOBS[job["kind"]](job, asked)
    except EdgeftError as error:
        answer = error_line(error)
    _tell(answer)
    return int(answer.get("exit_code", 0))


def _require_libraries() -> None:
    from edgeft.pipeline.device.needs import lacks, libraries

    if missing := lacks(libraries()):
        raise DeviceError(
            f"{sys.executable} there lacks {', '.join(missing)}",
            hint="install it there, or name another interpreter: ssh://host/path/to/python",
        )


def _facts(job: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """Answer {"facts": {...}}."""
    from edgeft.pipeline.device.needs import device_facts

    del job, asked
    return {"facts": device_facts()}


def _bench(job: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """Answer {"record": {...}, "baseline": text or null}."""
    from edgeft.pipeline.bench import Options, measure

    del asked
    kept = Path(_BASELINE) if job["baseline"] else None
    record = measure(Path(job["subject"]), Options(**{**job["options"], "baseline": kept}), emit=_emit)
    return {"record": record, "baseline": kept.read_text(encoding="utf-8") if kept else None}


def _verify(job: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """Answer {"check": {...}}."""
    from edgeft.bundle.check import check

    del asked
    return {"check": check(Path(job["subject"]), threads=job["threads"]).to_json()}


def _time(job: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """Answer {"timing": {...}} to each request that comes, and {"done": 1} to {"end": 1}."""
    from edgeft.runtime.launch import launch
    from edgeft.runtime.worker import Request

    del job
    while "end" not in (request := asked.get()):
        _tell({"timing": asdict(launch(Request(**request)))})
    return {"done": 1}


_JOBS: Final[Mapping[str, Callable[[Mapping[str, Any], Asked], dict[str, Any]]]] = {
    "facts": _facts,
    "bench": _bench,
    "verify": _verify,
    "time": _time,
}


def _emit(event: Event) -> None:
    if line := event_line(event):
        _tell(line)


def _beat() -> None:
    while True:
        time.sleep(_BEAT_S)
        _tell({"alive": 1})


def _hear(asked: Asked) -> None:
    """Keep the lines that come; the end of the input is the end of the line."""
    rest = b""
    while some := os.read(0, 1 << 16):  # not sys.stdin: its lock would hang the interpreter's end
        *lines, rest = (rest + some).split(b"\n")
        for line in lines:
            asked.put(object_of(line))
    os.killpg(0, signal.SIGKILL)


def _tell(told: dict[str, Any]) -> None:
    """Write one line; where nobody listens any more, end this process and all that it started."""
    line = json.dumps(told, allow_nan=False) + "\n"
    try:
        with _TELLING:
            sys.stdout.write(line)
            sys.stdout.flush()
    except OSError:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main())

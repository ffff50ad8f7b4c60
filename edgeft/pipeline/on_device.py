"""The other end of `--device ssh://...`: runs the job in this folder and tells one JSON object a line.

{"alive": 1}   every second, so that a line that was cut ends the run: nobody is left to tell
{"progress": {...}}, {"message": {...}}
{"record": {...}, "baseline": text or null}   or   {"error": ..., "hint": ..., "exit_code": ...}
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from edgeft.core.errors import EdgeftError
from edgeft.core.events import Event
from edgeft.core.lines import error_line, event_line

_BEAT_S = 1.0
_BASELINE = "baseline.json"


def main() -> int:
    """Run job.json and return the exit code."""
    os.setpgrp()  # so that all of it can be ended at once
    threading.Thread(target=_beat, daemon=True).start()
    try:
        answer = _run(json.loads(Path("job.json").read_text(encoding="utf-8")))
    except EdgeftError as error:
        answer = error_line(error)
    _tell(answer)
    return int(answer.get("exit_code", 0))


def _run(job: dict[str, Any]) -> dict[str, Any]:
    from edgeft.pipeline.bench import Options, measure

    kept = Path(_BASELINE) if job["baseline"] else None
    record = measure(Path(job["subject"]), Options(**{**job["options"], "baseline": kept}), emit=_emit)
    return {"record": record, "baseline": kept.read_text(encoding="utf-8") if kept else None}


def _emit(event: Event) -> None:
    if line := event_line(event):
        _tell(line)


def _beat() -> None:
    while True:
        time.sleep(_BEAT_S)
        _tell({"alive": 1})


def _tell(told: dict[str, Any]) -> None:
    """Write one line; where nobody listens any more, end this process and all that it started."""
    line = json.dumps(told, allow_nan=False) + "\n"
    try:
        sys.stdout.write(line)
        sys.stdout.flush()
    except OSError:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main())

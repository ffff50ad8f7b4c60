"""Runs one timing request in a fresh process and reads its answer."""

import json
import subprocess
import sys
from dataclasses import asdict

from edgeft.core.errors import DeviceError
from edgeft.runtime.worker import Request, Timing

_TIMEOUT_S = 600
"""Beside the samples: loading, warming up and the last sample."""


def launch(request: Request) -> Timing:
    """Run `request` in a fresh interpreter.

    Raises:
        DeviceError: the process failed, was killed or did not answer; its last words are in the message.
    """
    command = [sys.executable, "-m", "edgeft.runtime.worker", json.dumps(asdict(request))]
    limit = _TIMEOUT_S + request.max_seconds
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)  # noqa: S603 - an argument list, no shell
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"timing {request.model} took more than {limit:.0f} s", hint="the model may be hung"
        ) from error
    lines = done.stdout.strip().splitlines()
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise DeviceError(
            f"timing {request.model}: the process ended with {done.returncode} and said: {said[0]}",
            hint="a negative number is a signal: -9 is usually too little memory",
        ) from error
    if "error" in answer:
        raise DeviceError(f"timing {request.model}: {answer['error']}", hint=answer.get("hint"))
    return Timing(**answer)

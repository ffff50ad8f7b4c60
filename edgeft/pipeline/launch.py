"""Runs a method in several processes: `accelerate launch` starts them, this one tells what they tell.

What was trained when a run is stopped stays in the workspace, as in one process.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeft.core.errors import EdgeftError
from edgeft.core.lines import error_of, event_of, object_of
from edgeft.core.stage import Context, Method, StageResult

_WORKER = "edgeft.cli.worker"
_LAUNCH = "launch.json"
_TAIL = 5
_STOP_S = 30.0


def launched(
    method: Method,
    context: Context,
    inputs: Mapping[str, Path],
    config: Any,  # noqa: ANN401 - a method's own config
    processes: int,
) -> StageResult:
    """Run `method` in `processes` processes of this machine and return the first one's result.

    Raises:
        EdgeftError: what a process raised, or that one died; says its last words.
    """
    job = {
        "run": method.run,
        "config": method.config,
        "settings": config.model_dump(mode="json"),
        "inputs": {role: str(path) for role, path in inputs.items()},
        "folder": str(context.folder),
        "workspace": str(context.workspace),
        "memo": None if context.memo is None else str(context.memo),
        "seed": context.seed,
        "threads": context.threads,
    }
    with tempfile.TemporaryDirectory(prefix="edgeft-") as folder:
        path, log = Path(folder) / "job.json", Path(folder) / "log"
        path.write_text(json.dumps(job), encoding="utf-8")
        (Path(folder) / _LAUNCH).write_text(json.dumps(_here(processes)), encoding="utf-8")
        with log.open("wb") as words:
            started = subprocess.Popen(_command(path), stdout=subprocess.PIPE, stderr=words)  # noqa: S603 - a list, no shell
            with started as running:
                answer = _listen(running, context)
        if answer is not None:
            return StageResult(context.folder, answer["measurements"], tuple(answer["notes"]), answer["timings"])
        tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_TAIL:]
        raise EdgeftError(
            f"{method.kind}/{method.name} in {processes} processes: one ended early: {' | '.join(tail) or 'no words'}",
            hint=f"the same in one process tells more: --set {method.kind}.processes=1",
        )


def _here(processes: int) -> dict[str, Any]:
    """Return accelerate's configuration of processes on this machine; the user's own may be of another kind."""
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",  # CPUs, too: it starts torch's launcher, and each process chooses its device
        "machine_rank": 0,
        "main_process_port": 0,
        "mixed_precision": "no",  # the method chooses
        "num_machines": 1,
        "num_processes": processes,
        "use_cpu": False,
    }


def _command(job: Path) -> list[str]:
    configured = ["--config_file", str(job.with_name(_LAUNCH)), "--dynamo_backend", "no"]
    return [sys.executable, "-m", "accelerate.commands.launch", *configured, "-m", _WORKER, str(job)]


def _listen(running: "subprocess.Popen[bytes]", context: Context) -> dict[str, Any] | None:
    """Tell what the processes tell and return their answer; None where there is none."""
    answer: dict[str, Any] | None = None
    error: EdgeftError | None = None
    try:
        for line in running.stdout or ():
            told = object_of(line)
            if event := event_of(told):
                context.emit(event)
            error = error or error_of(told)
            answer = told.get("result", answer)
        running.wait()
    finally:
        _stop(running)
    if error is not None:
        raise error
    return answer if running.returncode == 0 else None


def _stop(running: "subprocess.Popen[bytes]") -> None:
    """End the launcher where it still runs: it ends the processes that it started."""
    if running.poll() is None:
        running.terminate()
        try:
            running.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            running.kill()

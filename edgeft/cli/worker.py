"""One of several training processes: `accelerate launch` starts it, the stage engine listens to the first one.

The job is a JSON file. Every process runs the method as if it were alone; the loop shares the batches among them
(`finetune/sharing.py`). The first one writes the stage's folder, the others write into folders that are thrown away.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgeft import catalog
from edgeft.core.errors import EdgeftError
from edgeft.core.events import Event, ignore
from edgeft.core.lines import error_line, event_line
from edgeft.core.stage import Context, StageResult


def main(job: Path) -> int:
    """Run the job in this process's part, and tell the answer in lines (`edgeft.core.lines`)."""
    values: dict[str, Any] = json.loads(job.read_text(encoding="utf-8"))
    first = int(os.environ["RANK"]) == 0
    with tempfile.TemporaryDirectory(prefix="edgeft-") as aside:
        context = Context(
            folder=Path(values["folder"]) if first else Path(aside),
            workspace=Path(values["workspace"]),
            seed=values["seed"],
            threads=max(1, values["threads"] // int(os.environ["WORLD_SIZE"])),
            emit=_emit if first else ignore,
            memo=Path(values["memo"]) if values["memo"] else None,
        )
        try:
            config = catalog.resolve(values["config"]).model_validate(values["settings"])
            inputs = {role: Path(path) for role, path in values["inputs"].items()}
            result: StageResult = catalog.resolve(values["run"])(context, inputs, config)
        except EdgeftError as error:
            _tell(error_line(error))
            return 1
    if first:
        answer = {"measurements": result.measurements, "notes": result.notes, "timings": result.timings}
        _tell({"result": answer})
    return 0


def _emit(event: Event) -> None:
    if line := event_line(event):
        _tell(line)


def _tell(told: dict[str, Any]) -> None:
    """Write one line; where nobody listens any more, end: the next run may have started."""
    try:
        os.write(sys.stdout.fileno(), (json.dumps(told) + "\n").encode())
    except OSError:
        os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))

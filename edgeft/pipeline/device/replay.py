"""The last hop of a build for another machine: the bundle on the device, before it takes its place here.

What is sent is packed from the same parts as the bundle that stays, so both have one content digest; only the report
differs, by what the device said.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeft.core import machine
from edgeft.core.events import StageFinished, StageStarted
from edgeft.pipeline.assemble import assemble
from edgeft.pipeline.device.place import There
from edgeft.pipeline.record import RunRecord
from edgeft.pipeline.target_result import TargetResult
from edgeft.recipe.model import Recipe

NAME = "device"


def replayed(
    record: RunRecord, result: TargetResult, recipe: Recipe, images: Path | None, device: There, folder: Path
) -> RunRecord:
    """Return `record` with the check of its bundle on `device`.

    Args:
        record: the run.
        result: what came out for the target that runs there.
        recipe: what was built.
        images: root of the raw images; None of texts.
        device: where.
        folder: where the bundle lies meanwhile.

    Raises:
        IntegrityError: the bundle decides something else there.
        DeviceError: the device cannot be reached any more.
    """
    device.emit(StageStarted(NAME, "always checked anew"))
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="bundle-", dir=folder) as scratch:
        trial = Path(scratch) / recipe.name
        assemble(record, result, recipe, images, trial, None)
        found, seconds = device.replay(trial)
    device.emit(StageFinished(NAME, reused=False, seconds=seconds))
    told = {name: value for name, value in found.items() if name not in {"bundle", "device"}}
    return replace(record, device={"address": device.device.text, "check": told, "built_on": machine.facts()})

"""The lower stage: the chosen candidate as one target runtime's files, and what that runtime leaves in float."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from edgeft import catalog
from edgeft.core.atomic import write_atomic
from edgeft.core.errors import EdgeftError
from edgeft.core.exporter import LintFinding
from edgeft.core.stage import Context, Inputs, Json, StageResult
from edgeft.pipeline.stage_configs import LowerConfig

__all__ = ["LowerConfig", "run"]

MODEL = "model.onnx"


def run(ctx: Context, inputs: Inputs, config: LowerConfig) -> StageResult:
    """Lower `inputs["choose"]`; its precision is looked up in `inputs["compress"]`.

    Writes `TARGET/model.onnx`, `TARGET/lint.json`, and `lowered.json`: which candidate it is, for which target.

    Raises:
        UsageError: no exporter has the target's name.
        EdgeftError: the exporter refuses the model, or wrote no `model.onnx`.
    """
    chosen: str = json.loads((inputs["choose"] / "choice.json").read_bytes())["chosen"]
    listed = json.loads((inputs["compress"] / "candidates.json").read_bytes())["candidates"]
    candidate = next(item for item in listed if item["name"] == chosen)
    exporter = catalog.exporter(config.target)
    folder = ctx.folder / config.target
    folder.mkdir()
    files = exporter.lower(inputs["choose"] / MODEL, folder)
    if not files or files[0] != folder / MODEL:
        raise EdgeftError(f"exporter {config.target!r} wrote {[str(file) for file in files]}, expected {MODEL} first")
    findings = exporter.lint(files[0])
    write_atomic(folder / "lint.json", json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")
    lowered: dict[str, Json] = {
        "schema": 1,
        "chosen": chosen,
        "precision": candidate["precision"],
        "temperature": candidate["temperature"],
        "target": config.target,
        "model": f"{config.target}/{MODEL}",
    }
    write_atomic(ctx.folder / "lowered.json", json.dumps(lowered, indent=1) + "\n")
    stray = [finding for finding in findings if not finding.expected]
    measurements: dict[str, Json] = {
        "chosen": chosen,
        "float_ops": len(findings),
        "float_ops_unexpected": len(stray),
        "size_bytes": sum(file.stat().st_size for file in files),
    }
    return StageResult(ctx.folder, measurements, tuple(_notes(stray)))


def _notes(stray: Sequence[LintFinding]) -> Iterator[str]:
    """Yield one note for each operator type and reason; lint.json names every operator."""
    alike: dict[tuple[str, str], list[str]] = {}
    for item in stray:
        alike.setdefault((item.op_type, item.reason), []).append(item.node)
    for (op_type, reason), nodes in alike.items():
        named = nodes[0] if len(nodes) == 1 else f"{nodes[0]} and {len(nodes) - 1} more"
        yield f"{op_type} {named} does not run as planned: {reason}"

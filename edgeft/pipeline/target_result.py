"""What came out for one target: its stages by their plain names, what was timed, and its part of the record."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeft import catalog
from edgeft.core.events import EventSink
from edgeft.core.record import Gate, StageRecord
from edgeft.core.store import Entry
from edgeft.pipeline import gates as judged
from edgeft.pipeline import latency as timing
from edgeft.pipeline.device.place import BuildPlace
from edgeft.pipeline.lower import MODEL
from edgeft.pipeline.propose import PROPOSAL
from edgeft.pipeline.record import RunRecord
from edgeft.pipeline.timed import own_runtime
from edgeft.recipe.model import Recipe
from edgeft.recipe.target_stages import CHAIN, stage_name

_FP32_MODEL = "candidates/fp32/model.onnx"
_LINT = "lint.json"
_SHARED_GATE = "parity torch > fp32"
UNTIMED = "unverified on hardware"


@dataclass(frozen=True, slots=True)
class TargetResult:
    """The end of one target's way.

    Args:
        target: its name.
        entries: stage outputs; those of its own stages by their plain names.
        found: what the record quotes from them.
        compared: the ABBA comparison with float, or None.
        gates: its gates, of accuracy and of latency.
        stages: what was timed, as a stage.
    """

    target: str
    entries: Mapping[str, Entry]
    found: dict[str, Any]
    compared: dict[str, Any] | None = None
    gates: tuple[Gate, ...] = ()
    stages: tuple[StageRecord, ...] = ()

    @property
    def model(self) -> Path:
        """The file that the device runs."""
        return self.entries["lower"].folder / self.target / MODEL

    @property
    def more(self) -> tuple[Path, ...]:
        """The target's other files."""
        return tuple(path for path in sorted(self.model.parent.iterdir()) if path.name not in {MODEL, _LINT})

    def named_gates(self) -> tuple[Gate, ...]:
        """Return its gates by names that tell the target, without the one that all targets share."""
        own = (gate for gate in self.gates if gate.name != _SHARED_GATE)
        return tuple(replace(gate, name=f"{self.target}: {gate.name}") for gate in own)

    def told(self, record: RunRecord, bundle: Path) -> RunRecord:
        """Return the build's `record` as this target's own bundle tells it."""
        report = str(bundle / Path(record.report).name)
        return replace(
            record,
            bundle=str(bundle),
            report=report,
            gates=self.gates,
            latency=self.compared,
            device=None,  # only the first target's bundle was replayed there
            **self.found,
        )

    def row(self) -> dict[str, Any]:
        """Return its line in the comparison of targets."""
        choice, verify = self.found["choice"], self.found["verify"]
        name = choice["chosen"]
        chosen = next(item for item in self.found["candidates"]["candidates"] if item["name"] == name)
        drop, metric = verify["drop"], verify["drop"]["metric"]
        block, compared = verify["metrics"][name], self.compared
        own = ("compress", "lower")
        return {
            "target": self.target,
            "ships": name,
            "precision": chosen["precision"],
            "metric": metric,
            "value": block[metric],
            "interval": block.get(f"{metric}_interval"),
            "drop_pp": drop["value_pp"],
            "drop_interval_pp": drop["interval_pp"],
            "n": verify["n"],
            "changed": drop["changed"],
            "float_operators": len(self.found["lint"]),
            "float_unexpected": sum(not item["expected"] for item in self.found["lint"]),
            "size_bytes": sum(path.stat().st_size for path in (self.model, *self.more)),
            "build_seconds": sum(self.entries[stage].seconds for stage in own),
            "median_ms": compared and compared["new"]["median_ms"],
            "ratio_to_fp32": compared and compared["ratio"],
            "ratio_interval": compared and compared["interval"],
            "gates": [{"name": gate.name, "verdict": gate.verdict} for gate in self.gates],
            "not_timed": UNTIMED if catalog.exporter(self.target).cross else None,
        }


def result_of(
    recipe: Recipe,
    target: str,
    entries: Mapping[str, Entry],
    *,
    images: Path | None,
    folder: Path,
    emit: EventSink,
    place: BuildPlace | None,
) -> TargetResult:
    """Read what `target`'s stages made, and time it against float in onnxruntime.

    Args:
        recipe: what was built.
        target: one of its targets.
        entries: stage outputs by name.
        images: root of the raw images; None of texts.
        folder: where what is timed is written.
        emit: where events go.
        place: the machine that times; None leaves it out.

    Raises:
        DataError: there are no validation rows.
        DeviceError: a timing process failed.
    """
    plain = {**entries, **{name: entries[stage_name(name, target, recipe)] for name in CHAIN}}
    found = _read(recipe, plain, target)
    made = TargetResult(target, plain, found, gates=tuple(map(judged.gate_from_json, found["verify"]["gates"])))
    if place is None or catalog.exporter(target).cross:
        return made
    compared, timed, record = timing.measure(
        recipe.verify.latency,
        fp32=plain["compress"].folder / _FP32_MODEL,
        lowered=made.model,
        data=plain["data"].folder,
        images=images,
        folder=folder,
        emit=emit,
        place=place,
        exporter=own_runtime(target),
        budget_ms=_budget(recipe) if target == recipe.lower.targets[0] else None,
    )
    told = replace(record, name=stage_name(record.name, target, recipe))
    return replace(made, compared=compared, gates=(*made.gates, *timed), stages=(told,))


def _budget(recipe: Recipe) -> float | None:
    """Return `distill.budget_ms`, which candidates were proposed for in the first target's runtime."""
    written = recipe.distill.values.get("budget_ms") if recipe.distill is not None else None
    return float(written) if isinstance(written, int | float) else None


def _read(recipe: Recipe, entries: Mapping[str, Entry], target: str) -> dict[str, Any]:
    """Return what the record quotes from stage outputs."""
    history = "history.json"
    places = {
        "choice": entries["choose"].folder / "choice.json",
        "data": entries["data"].folder / "dataset.json",
        "candidates": entries["compress"].folder / "candidates.json",
        "lint": entries["lower"].folder / target / _LINT,
        "verify": entries["verify"].folder / "verify.json",
        "history": entries["finetune"].folder / history,
    }
    found: dict[str, Any] = {name: json.loads(path.read_bytes()) for name, path in places.items()}
    found["choice"] |= entries["choose"].timings
    found["candidates"]["timings"] = dict(entries["compress"].timings)
    if recipe.distill is not None:
        asked: Any = recipe.distill.values
        if "propose" in entries:
            asked = json.loads((entries["propose"].folder / PROPOSAL).read_bytes())["chosen"]
        named = asked.get("student") or {}
        found["student"] = {
            **{key: named.get(key) for key in ("base", "weights")},
            "history": json.loads((entries["distill"].folder / history).read_bytes()),
        }
    return found

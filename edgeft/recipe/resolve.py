"""Whether a stage's result is stored already, and if not, why it runs: decided the same way by `plan` and by `build`.

A stage's key needs its inputs' digests. Where an upstream stage has not run yet these are not known: then the stage is
known to run, its key is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeft import catalog
from edgeft.core import machine
from edgeft.core.keys import Components, components, key_of
from edgeft.core.sources import SourceDigests
from edgeft.core.stage import Json
from edgeft.core.store import Entry, Store
from edgeft.recipe.model import Recipe, failed_folder, target_folders
from edgeft.recipe.reasons import reason
from edgeft.recipe.stage import Stage


@dataclass(frozen=True, slots=True)
class Resolved:
    """One stage against the store: its entry where there is one, and why it would run where there is none."""

    stage: Stage
    components: Components | None
    entry: Entry | None
    reason: str


@dataclass(slots=True)
class Resolver:
    """Decides stage after stage whether its result is there; reads each source once.

    Args:
        store: where results are.
        sources: digests of the user's files.
        seed: the run's seed.
        outputs: digest of each stage's output, as far as known.
        device: facts of the device that stages are timed on; None is this machine.
    """

    store: Store
    sources: SourceDigests
    seed: int
    outputs: dict[str, str] = field(default_factory=dict)
    device: Mapping[str, Json] | None = None

    def resolve(self, stage: Stage) -> Resolved:
        """Return what is known of `stage`, and note its output's digest where it is stored."""
        device = (self.device or device_facts(stage)) if stage.per_device else None
        missing = [name for name in stage.upstream.values() if name not in self.outputs]
        inputs = {role: self.outputs[name] for role, name in stage.upstream.items() if name in self.outputs}
        inputs |= {role: self.sources.of(path) for role, path in stage.sources.items()}
        seed = self.seed + stage.seed_offset
        parts = components(stage.method, stage.config_json(), inputs=inputs, seed=seed, device=device)
        last = self.store.last(stage.name)
        if missing:
            return Resolved(
                stage, None, None, self._own_reason(stage, last, parts) or f"runs because {missing[0]} runs"
            )
        key = key_of(parts)
        if entry := self.store.lookup(key):
            self.outputs[stage.name] = entry.digest
            return Resolved(stage, parts, entry, "reused")
        if self.store.has_scratch(key):
            return Resolved(stage, parts, None, "resumes a run that was stopped")
        damage = self.store.damage(key)
        because = f"runs because its stored result is damaged: {damage}" if damage else reason(stage, last, parts)
        return Resolved(stage, parts, None, because or "runs because its stored result is gone")

    @staticmethod
    def _own_reason(stage: Stage, last: Components | None, parts: Components) -> str | None:
        """Return why the stage would run whatever upstream yields: its own settings changed."""
        if last is None:
            return "first run"
        return reason(stage, last, {name: value for name, value in parts.items() if name != "inputs"})


def source_digests(recipe: Recipe, cache: Path, bundle: Path | None = None) -> SourceDigests:
    """Return the digests of the user's files; cache, bundles and recipe may lie among them and do not count.

    Args:
        recipe: the recipe.
        cache: its cache folder.
        bundle: where its bundle goes; None is the default place.
    """
    ends = target_folders(recipe, bundle or recipe.bundle_folder).values()
    return SourceDigests((cache, *ends, *map(failed_folder, ends), recipe.path))


def device_facts(stage: Stage) -> dict[str, Json]:
    """Return what a timing on this device depends on: the machine, and the target runtime's own facts."""
    facts = dict(machine.cpu())
    target = stage.config_json().get("target")
    if isinstance(target, str):
        facts["runtime"] = dict(catalog.exporter(target).fingerprint())
    return facts

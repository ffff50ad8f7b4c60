"""What a build would do and why, without doing it; how long it would take and what its test split can certify."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from edgeft import catalog
from edgeft.core.errors import UsageError
from edgeft.core.keys import Components, changes, key_of
from edgeft.core.stage import Json
from edgeft.core.store import Entry, Store
from edgeft.recipe.model import Recipe
from edgeft.recipe.resolve import Resolved, Resolver, source_digests
from edgeft.recipe.stage import Stage
from edgeft.recipe.stages import stages

_CERTIFIABLE = "edgeft.verify.power:certifiable_margin_pp"
_DATA_CONFIG = "edgeft.data.config:DataConfig"
_PARTS_NEEDED = "edgeft.verify.decision:parts_needed"
_TEST_IMAGES = "edgeft.data.divide:count_test_images"
DISCORDANCES = (0.01, 0.02)
"""Shares of changed decisions that a good and an ordinary int8 model show."""


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One stage of the plan.

    Args:
        stage: its name.
        method: its method's name.
        key: its cache key; None while an upstream output is not known.
        runs: whether a build would run it.
        reason: why, or "reused".
        seconds: how long it took the last time it ran under like settings; None where it never ran here.
    """

    stage: str
    method: str
    key: str | None
    runs: bool
    reason: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Certifiable:
    """What the test split can show.

    Args:
        n: images in the test split.
        margins_pp: smallest certifiable accuracy drop, in percentage points, by share of changed decisions.
        asked_pp: the recipe's margin.
        detail: one sentence.
    """

    n: int
    margins_pp: dict[str, float]
    asked_pp: float
    detail: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a build would do.

    Args:
        rows: the stages in order, then latency and bundle.
        recipe: the recipe with every default filled in.
        certifiable: what the test split can show; before `data` has run, from the table alone; None where even that
            is not known.
        seconds: estimated time; None where a stage that would run never ran here.
    """

    rows: tuple[PlanRow, ...]
    recipe: dict[str, Json]
    certifiable: Certifiable | None
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return asdict(self)


Fingerprint: TypeAlias = Callable[[Sequence[Stage]], Mapping[str, Json] | None]
"""The stages of a build -> what cache keys hold of the device that measures; None is this machine."""


def make_plan(recipe: Recipe, store: Store, *, latency: bool = True, device: Fingerprint = lambda _: None) -> Plan:
    """Return what a build of `recipe` would do; writes nothing but small remembered facts in an existing cache.

    Args:
        recipe: the recipe.
        store: its cache, which need not exist yet.
        latency: whether the build would measure latency.
        device: what would measure; it refuses what it cannot.

    Raises:
        DataError: a file that the recipe names is missing.
        UsageError: a method is unknown, or a number is not finite.
    """
    listed = stages(recipe, store)
    check_finite(listed)
    resolver = Resolver(store, source_digests(recipe, store.cache), recipe.seed, device=device(listed))
    found = [resolver.resolve(stage) for stage in listed]
    known = tuple(store.entries())
    rows = [
        PlanRow(
            item.stage.name,
            item.stage.method.name,
            key_of(item.components) if item.components else None,
            item.entry is None,
            item.reason,
            None if item.entry else _estimate(item.stage, known),
        )
        for item in found
    ]
    if latency:
        rows.append(PlanRow("latency", "abba", None, True, "always measured anew", None))
    rows.append(PlanRow("bundle", "pack", None, True, "assembled on every run", None))
    times = [row.seconds for row in rows if row.runs and row.stage not in {"latency", "bundle"}]
    total = None if None in times else sum(time for time in times if time is not None)
    return Plan(tuple(rows), resolved_recipe(recipe, listed), _certifiable(recipe, found[0]), total)


def resolved_recipe(recipe: Recipe, listed: tuple[Stage, ...]) -> dict[str, Json]:
    """Return the recipe with every default and everything that the engine fills in."""
    configs = {stage.name: stage for stage in listed}
    blocks: dict[str, Json] = {
        name: {"method": configs[name].method.name, **configs[name].config_json()}
        for name in ("data", "finetune", "distill", "export")
        if name in configs
    }
    return {
        "version": recipe.version,
        "seed": recipe.seed,
        "smoke": recipe.smoke,
        **blocks,
        "model": recipe.model.model_dump(mode="json"),
        "compress": configs["compress"].config_json(),
        "choose": configs["choose"].config_json(),
        "lower": recipe.lower.model_dump(mode="json"),
        "decide": {"method": configs["decide"].method.name, **configs["decide"].config_json()},
        "verify": recipe.verify.model_dump(mode="json"),
        "bundle": {**recipe.bundle.model_dump(mode="json"), "name": recipe.name},
    }


def check_finite(listed: tuple[Stage, ...]) -> None:
    """Refuse NaN and infinity in configs: they have no canonical JSON, so no key.

    Raises:
        UsageError: names the key.
    """
    for stage in listed:
        try:
            json.dumps(stage.config_json(), allow_nan=False)
        except ValueError as error:
            raise UsageError(f"{stage.name}: a number is not finite: {stage.config_json()}") from error


def _estimate(stage: Stage, known: tuple[Entry, ...]) -> float | None:
    """Return the time of the stored run of the same method whose config is nearest; the latest of equals."""
    name = f"{stage.method.kind}/{stage.method.name}"
    config = stage.config_json()
    same = [entry for entry in known if entry.components.get("method") == name]
    if not same:
        return None
    nearest = min(same, key=lambda entry: (_distance(entry.components, config), -entry.created))
    return nearest.seconds


def _distance(parts: Components, config: Mapping[str, Json]) -> int:
    return sum(1 for _ in changes(parts.get("config"), dict(config)))


def _certifiable(recipe: Recipe, data: Resolved) -> Certifiable | None:
    limits = ""
    if data.entry is not None:
        head = json.loads((data.entry.folder / "dataset.json").read_bytes())
        n = sum(head["counts"].get("test", {}).values())
        limits = "".join(f"; {text}" for text in _limits(recipe, head))
    elif data.stage.method.config == _DATA_CONFIG:
        n = catalog.resolve(_TEST_IMAGES)(data.stage.sources, data.stage.config)
    else:
        return None
    if n == 0:
        return None
    margin = catalog.resolve(_CERTIFIABLE)
    margins = {f"{share:g}": round(float(margin(n, share)), 3) for share in DISCORDANCES}
    asked = recipe.verify.accuracy.max_drop_pp
    low, high = (margins[f"{share:g}"] for share in DISCORDANCES)
    can = "it can certify" if asked >= high else "too few to certify" if asked < low else "it may or may not certify"
    detail = (
        f"the test split has {n} images: {can} the {asked:g} pp margin "
        f"({low:.2f} pp if 1 % of decisions change, {high:.2f} pp if 2 % do)"
    )
    return Certifiable(n, margins, asked, detail + limits)


def _limits(recipe: Recipe, head: Mapping[str, Any]) -> Iterator[str]:
    """Yield for each limit of `decide` whether validation has the parts that it needs."""
    counts, ok = head["counts"].get("val", {}), head.get("ok_class")
    good = counts.get(ok, 0)
    for name, n, what in (("max_escape", sum(counts.values()) - good, "bad"), ("max_overkill", good, "good")):
        limit = recipe.decide.values.get(name)
        if isinstance(limit, int | float):
            needed = catalog.resolve(_PARTS_NEEDED)(limit)
            can = "as it must for" if n >= needed else "too few for"
            yield f"validation has {n} {what} parts, {can} decide.{name} {limit:g} ({needed})"

"""From the deployment graph to one target's verified files: compress, choose, lower, decide, verify.

The first of `lower.targets` is what the bundle runs in; its stages have the plain names. Each further target has stages
of its own, NAME-TARGET: it is calibrated from the same statistics, and judged in its own runtime where that runs here.
"""

from collections.abc import Mapping
from pathlib import Path

from edgeft import catalog
from edgeft.core.errors import UsageError
from edgeft.core.stage import Json
from edgeft.recipe.model import Recipe
from edgeft.recipe.smoke import TRIAL_MARGIN_PP
from edgeft.recipe.stage import Stage, bare, stage_of

BUNDLE_RUNTIME = "onnxruntime"
"""What `edgeft.runtime` runs a bundle with."""
ANSWERS = "answers"
"""The stage that asks the teacher of a student what training of int8 follows."""
CHAIN = ("compress", "choose", "lower", "decide", "verify")


def stage_name(name: str, target: str, recipe: Recipe) -> str:
    """Return what the stage `name` of `target` is called."""
    return name if target == recipe.lower.targets[0] else f"{name}-{target}"


def bars_of(recipe: Recipe) -> dict[str, Json]:
    """Return what is judged and timed, and how, as configs of stages take it."""
    accuracy, latency = recipe.verify.accuracy, recipe.verify.latency
    return {
        "metric": accuracy.metric,
        "max_drop_pp": accuracy.max_drop_pp,
        "target": recipe.lower.targets[0],
        "threads": latency.threads,
    }


def require_targets(recipe: Recipe) -> None:
    """Refuse targets that cannot be made here, before anything runs.

    Raises:
        UsageError: one is unknown, or the first is not what a bundle runs in.
        DeviceError: the runtime of one is not installed.
    """
    for index, target in enumerate(recipe.lower.targets):
        exporter = catalog.exporter(target)
        runtime = None if exporter.cross else exporter.fingerprint().get("runtime")
        require = getattr(exporter, "require", None)
        if require is not None:
            require()
        if index == 0 and runtime != BUNDLE_RUNTIME:
            raise UsageError(
                f"lower.targets: {target} comes first, but what comes first must run here and in {BUNDLE_RUNTIME}",
                hint=f"lower.targets: [onnx, {target}] makes a bundle for each",
            )


def follows_teacher(recipe: Recipe) -> bool:
    """Return whether training of int8 follows the teacher of a distilled student.

    Raises:
        UsageError: there is no student, or it reads texts, whose int8 is not trained.
    """
    if recipe.compress.values.get("follow") != "teacher":
        return False
    if recipe.distill is None:
        raise UsageError(
            "compress.follow: teacher, and the recipe has no distill block: nothing has a teacher",
            hint="remove it: int8 then follows the float graph",
        )
    if getattr(recipe.model, "takes_texts", False):
        raise UsageError("compress.follow: is for images; the int8 of texts is not trained", hint="remove it")
    return True


def target_stages(
    recipe: Recipe, target: str, checkpoint: str, images: Mapping[str, Path], teachers: Mapping[str, str]
) -> list[Stage]:
    """Return the stages of `target`.

    Args:
        recipe: the recipe.
        target: one of its targets.
        checkpoint: the stage whose model the graph was exported from.
        images: the root of the raw images by role; empty of texts.
        teachers: by role, what the student is set beside; told once, of the first target.
    """
    first, cross = target == recipe.lower.targets[0], catalog.exporter(target).cross
    bars = {**bars_of(recipe), "target": target}
    named = {name: stage_name(name, target, recipe) for name in CHAIN}
    searched = bool(recipe.compress.values.get("search"))
    untouched = {name: value for name, value in bars.items() if name != "threads"}  # of interest to timings alone
    trial: dict[str, Json] = {"max_drop_pp": TRIAL_MARGIN_PP} if recipe.smoke else {}
    # Of a smoke build: the same choice on a busy machine.
    untimed: dict[str, Json] = {"rounds": 0} if recipe.smoke or cross else {}
    limits = {name: recipe.decide.values.get(name) for name in ("max_escape", "max_overkill")}
    compressed, seen = {"compress": named["compress"]}, {"data": "data"}
    ends = {**compressed, "lower": named["lower"]}
    answers = {ANSWERS: ANSWERS} if follows_teacher(recipe) else {}
    return [
        stage_of(
            named["compress"],
            recipe.compress,
            {**(bars if searched else untouched), **trial},
            {"graph": "export", **seen, **answers},
            per_device=searched,
        ),
        stage_of(
            named["choose"],
            bare(catalog.find("choose", "fastest")),
            {**bars, **trial, **untimed},
            {**compressed, **seen},
            per_device=not cross,
        ),
        stage_of(named["lower"], bare(catalog.find("lower", target)), bars, {"choose": named["choose"], **compressed}),
        stage_of(named["decide"], recipe.decide, {}, {**seen, **ends}),
        stage_of(
            named["verify"],
            bare(catalog.find("verify", "parity")),
            {**bars, **limits, "max_drop_from_teacher_pp": recipe.verify.accuracy.max_drop_from_teacher_pp},
            {
                **seen,
                "checkpoint": checkpoint,
                "graph": "export",
                **ends,
                "decide": named["decide"],
                **(teachers if first else {}),
            },
            sources=dict(images),
        ),
    ]

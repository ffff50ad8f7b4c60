"""report.html: one self-contained offline file made from a run record, verdicts first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeft.core.stage import Json
from edgeft.report.markup import Markup, join
from edgeft.report.page import page
from edgeft.report.pictures import Pictures
from edgeft.report.reading import View, bundle_name, is_quantize
from edgeft.report.sections.accuracy import accuracy
from edgeft.report.sections.artifact import artifact
from edgeft.report.sections.candidates import candidates
from edgeft.report.sections.data import data
from edgeft.report.sections.distillation import distillation
from edgeft.report.sections.latency import latency
from edgeft.report.sections.lint import lint
from edgeft.report.sections.parity import flips, hops
from edgeft.report.sections.provenance import machine, recipe, stages
from edgeft.report.sections.source import source
from edgeft.report.sections.targets import targets
from edgeft.report.sections.training import training
from edgeft.report.sections.verdicts import gates, hero
from edgeft.report.sentences import command, status_verdict


@dataclass(frozen=True, slots=True)
class _Part:
    """One section: its anchor, its name in the navigation, what makes it, and the record's key that it shows."""

    anchor: str
    title: str
    make: Callable[[View, Pictures], Markup]
    key: str = ""


def _of(make: Callable[[View], Markup]) -> Callable[[View, Pictures], Markup]:
    return lambda view, _: make(view)


_DISTILLED, _TARGETS = "distillation", "targets"
_BUILD = (
    _Part("gates", "Gates", _of(gates)),
    _Part("artifact", "Artifact", _of(artifact)),
    _Part("accuracy", "Accuracy", _of(accuracy)),
    _Part(_TARGETS, "Targets", _of(targets)),
    _Part("candidates", "Candidates", _of(candidates)),
    _Part("latency", "Latency", _of(latency)),
    _Part("parity", "Parity", _of(hops)),
    _Part("flips", "Changed decisions", flips),
    _Part(_DISTILLED, "Student and teacher", distillation),
    _Part("data", "Data", _of(data)),
    _Part("training", "Training", _of(training)),
    _Part("stages", "Stages", _of(stages)),
    _Part("lint", "Left in float", _of(lint)),
    _Part("recipe", "Recipe", _of(recipe)),
    _Part("machine", "Machine", _of(machine)),
)
"""A build goes all the way, so a part that is missing says so; but not every build distills or has several targets."""
_QUANTIZE = (
    _Part("gates", "Gates", _of(gates), "gates"),
    _Part("candidates", "Candidates", _of(candidates), "candidates"),
    _Part("latency", "Latency", _of(latency), "latency"),
    _Part("lint", "Left in float", _of(lint), "lint"),
    _Part("source", "Model and data", _of(source), "source"),
    _Part("machine", "Machine", _of(machine), "machine"),
)
"""What quantizing a model that was there already has; a part that was not measured is left out."""


def render(record: Mapping[str, Json], verify_folder: Path) -> str:
    """Return the report as one HTML document without script that makes no request.

    Args:
        record: the record of a run (see edgeft.pipeline.record and edgeft.pipeline.quantize); any part may be missing.
        verify_folder: the verify stage's folder, which holds the thumbnails that the record names.
    """
    view = View(record)
    own = {_DISTILLED: bool(view.at("verify", _DISTILLED)), _TARGETS: bool(view.views("targets"))}
    built = [part for part in _BUILD if own.get(part.anchor, True)]
    parts = [part for part in _QUANTIZE if view.data.get(part.key)] if is_quantize(view) else built
    pictures = Pictures(verify_folder)
    title = f"{bundle_name(view)}: {status_verdict(view)} - {command(view)} report"
    version, run = view.at("versions").text("edgeft"), view.text("run") or "not recorded"
    footer = f"Made by edgeft {version} from run {run}. The same record is in report.json."
    contents = [(part.anchor, part.title) for part in parts]
    return page(title, contents, hero(view), join(*(part.make(view, pictures) for part in parts)), join(footer))

"""report.html: one self-contained offline file made from a run record, verdicts first."""

from collections.abc import Mapping
from pathlib import Path

from edgeft.core.stage import Json
from edgeft.report.markup import Markup, join
from edgeft.report.page import page
from edgeft.report.pictures import Pictures
from edgeft.report.reading import View, bundle_name
from edgeft.report.sections.accuracy import accuracy
from edgeft.report.sections.artifact import artifact
from edgeft.report.sections.candidates import candidates
from edgeft.report.sections.data import data
from edgeft.report.sections.latency import latency
from edgeft.report.sections.lint import lint
from edgeft.report.sections.parity import flips, hops
from edgeft.report.sections.provenance import machine, recipe, stages
from edgeft.report.sections.training import training
from edgeft.report.sections.verdicts import gates, hero
from edgeft.report.sentences import status_verdict

_CONTENTS = (
    ("gates", "Gates"),
    ("artifact", "Artifact"),
    ("accuracy", "Accuracy"),
    ("candidates", "Candidates"),
    ("latency", "Latency"),
    ("parity", "Parity"),
    ("flips", "Changed decisions"),
    ("data", "Data"),
    ("training", "Training"),
    ("stages", "Stages"),
    ("lint", "Left in float"),
    ("recipe", "Recipe"),
    ("machine", "Machine"),
)


def render(record: Mapping[str, Json], verify_folder: Path) -> str:
    """Return the report as one HTML document without script that makes no request.

    Args:
        record: the run record (see edgeft.pipeline.record); any part may be missing.
        verify_folder: the verify stage's folder, which holds the thumbnails that the record names.
    """
    view = View(record)
    title = f"{bundle_name(view)}: {status_verdict(view)} - edgeft build report"
    version, run = view.at("versions").text("edgeft"), view.text("run") or "not recorded"
    footer = f"Made by edgeft {version} from run {run}. The same record is in report.json."
    return page(title, _CONTENTS, hero(view), _sections(view, Pictures(verify_folder)), join(footer))


def _sections(view: View, pictures: Pictures) -> Markup:
    return join(
        gates(view),
        artifact(view),
        accuracy(view),
        candidates(view),
        latency(view),
        hops(view),
        flips(view, pictures),
        data(view),
        training(view),
        stages(view),
        lint(view),
        recipe(view),
        machine(view),
    )

"""What a CI server reads of a run: JUnit, GitHub annotations and job summary, Markdown."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeft.cli.terminal import note

Junit = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write the gates as a JUnit test suite (XML).")
]
Summary = Annotated[
    Path | None, typer.Option("--summary", metavar="FILE", help="Write the verdict and the gates as Markdown.")
]
Github = Annotated[
    bool,
    typer.Option("--github", help="Print GitHub annotations, and add the summary to the job where GitHub gives one."),
]
JOB_SUMMARY = "GITHUB_STEP_SUMMARY"
"""The file that GitHub Actions names for a step's summary."""


def tell(record: Mapping[str, Any], *, junit: Path | None, summary: Path | None, github: bool) -> None:
    """Write what was asked for.

    Annotations go to stderr, which GitHub reads like stdout: stdout holds the verb's own answer.

    Raises:
        DeviceError: a file cannot be written.
    """
    from edgeft.core.atomic import write_atomic
    from edgeft.core.errors import DeviceError
    from edgeft.report import junit as xml
    from edgeft.report.github import annotations
    from edgeft.report.summary import markdown_summary

    for path, text in ((junit, xml.junit), (summary, markdown_summary)):
        if path is not None:
            try:
                write_atomic(path, text(record))
            except OSError as error:
                raise DeviceError(f"{path}: cannot be written ({error.strerror})") from error
    if github:
        lines = annotations(record)
        if lines:
            note(lines.rstrip("\n"))
        job = os.environ.get(JOB_SUMMARY)
        if job:
            try:
                with Path(job).open("a", encoding="utf-8") as file:
                    file.write(markdown_summary(record))
            except OSError as error:
                raise DeviceError(f"{job}: cannot be written ({error.strerror})") from error

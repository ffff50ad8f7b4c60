"""The data stage: from the user's files to a dataset whose classes, splits and pixels never change again."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgeft.core.errors import UsageError
from edgeft.core.events import Message
from edgeft.core.stage import Context, Inputs, StageResult
from edgeft.data.audit.counts import Counts, certifiable_margin, class_counts, count
from edgeft.data.audit.duplicates import (
    contradictory_labels,
    copies_across_splits,
    copies_within,
    duplicate_findings,
    yielding,
)
from edgeft.data.audit.finding import MAX_ITEMS, Finding
from edgeft.data.audit.quarantine import quarantine, quarantine_finding
from edgeft.data.audit.resolution import resolution
from edgeft.data.audit.shift import class_shift, picture_shift
from edgeft.data.config import DataConfig, InputConfig
from edgeft.data.decode import ImageFacts, read_images
from edgeft.data.divide import divide
from edgeft.data.partition import SPLITS, check_every_class
from edgeft.data.sources.rows import SourceRow
from edgeft.data.unlabelled import UNLABELLED, Known, append_images_
from edgeft.data.writing import header, keep_rows_, numbered, plain, require_domains, write_header, write_rows
from edgeft.runtime.preprocess import InputContract


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows that are in the dataset so far.

    Args:
        at: position of each row's pixels in the file that was decoded into, ascending.
        rows: the rows.
        splits: their splits.
    """

    at: tuple[int, ...]
    rows: tuple[SourceRow, ...]
    splits: tuple[str, ...]

    @property
    def paths(self) -> list[str]:
        """The image paths."""
        return [row.path for row in self.rows]

    @property
    def labels(self) -> list[str]:
        """The class names."""
        return [row.label for row in self.rows]

    def take(self, keep: Sequence[int]) -> "Selection":
        """Return the rows at the positions `keep`."""
        return Selection(
            tuple(self.at[i] for i in keep), tuple(self.rows[i] for i in keep), tuple(self.splits[i] for i in keep)
        )


def run(ctx: Context, inputs: Inputs, config: DataConfig) -> StageResult:
    """Read, split, decode and audit the images; write dataset.json, rows.jsonl and pixels.npy to `ctx.folder`.

    Args:
        ctx: where to write, and how many images to decode at a time.
        inputs: "source", the table or folder; "images", the folder that paths are relative to.
        config: the `data:` block with `input` filled in.

    Raises:
        DataError: the data cannot be used; the message names the file, row, class or split.
        UsageError: an expression's syntax is wrong, or `config.input` is missing.
        DeviceError: the disk is full, or a library for the table's format is missing.
    """
    started = time.perf_counter()
    contract = input_contract(config.input)
    divided = divide(inputs, config)
    classes = divided.classes
    selected = Selection(tuple(range(len(divided.rows))), divided.rows, divided.splits)
    target = ctx.folder / "pixels.npy"
    decode_started = time.perf_counter()
    facts = read_images(inputs["images"], selected.paths, contract, target, threads=ctx.threads, emit=ctx.emit)
    decode_seconds = time.perf_counter() - decode_started
    out = quarantine(facts.failures, selected.paths, selected.splits)
    selected, facts = _without(selected, facts, facts.failures)
    copies, gone = _copies(selected, facts, config)
    digests = frozenset(facts.pixel_sha256)  # with those of the copies: they shall not come back without a label
    selected, facts = _without(selected, facts, gone)
    check_every_class(selected.splits, selected.labels, [row.group for row in selected.rows], classes)
    keep_rows_(target, selected.at)
    counts = count(selected.splits, selected.labels, classes, SPLITS)
    more, told = (
        append_images_(
            target,
            inputs[UNLABELLED],
            config.unlabelled_limit,
            contract,
            _known(digests, selected, facts, config),
            ctx.threads,
            ctx.emit,
        )
        if UNLABELLED in inputs
        else ([], [])
    )
    findings = [
        *divided.findings,
        *_passed_over(divided.ignored),
        quarantine_finding(out, len(divided.rows)),
        *copies,
        *_picture_findings(selected, facts, counts, contract),
        *told,
    ]
    numbers = numbered(selected.rows, selected.splits, facts.sha256, classes)
    require_domains(config.mix, numbers)
    write_rows(ctx.folder / "rows.jsonl", [*numbers, *more])
    described = header("image_classification", classes, config, contract, counts, findings, out)
    described["n"] = len(numbers) + len(more)
    write_header(ctx.folder / "dataset.json", described)
    notes = tuple(f"{finding.check}: {finding.message}" for finding in findings if finding.severity != "info")
    for note in notes:
        ctx.emit(Message(note, warning=True))
    return StageResult(
        ctx.folder,
        {"n": len(selected.rows), "classes": list(classes), "counts": plain(counts), "quarantined": len(out)},
        notes,
        {"seconds": time.perf_counter() - started, "decode_seconds": decode_seconds},
    )


def _known(digests: frozenset[str], selected: Selection, facts: ImageFacts, config: DataConfig) -> Known:
    held_out = [position for position, split in enumerate(selected.splits) if split != "train"]
    return Known(digests, facts.take(held_out), config.near_duplicates)


def input_contract(config: InputConfig | None) -> InputContract:
    """Return the contract that `config` describes.

    Raises:
        UsageError: it is missing, or its values contradict each other.
    """
    if config is None:
        raise UsageError("data.input is missing", hint="it comes from the model: give the recipe a model block")
    return InputContract(**config.model_dump())


def _without(selected: Selection, facts: ImageFacts, gone: Iterable[int]) -> tuple[Selection, ImageFacts]:
    left_out = set(gone)
    keep = [i for i in range(len(selected.rows)) if i not in left_out]
    return selected.take(keep), facts.take(keep)


def _copies(selected: Selection, facts: ImageFacts, config: DataConfig) -> tuple[tuple[Finding, ...], set[int]]:
    exact, near = copies_across_splits(facts, selected.splits, config.near_duplicates)
    findings = (
        *duplicate_findings(exact, near, selected.paths, selected.splits, config.duplicates),
        *contradictory_labels(facts, selected.labels, selected.paths),
    )
    return findings, yielding([*exact, *near], selected.splits) if config.duplicates == "drop" else set()


def _passed_over(ignored: Sequence[str]) -> list[Finding]:
    if not ignored:
        return []
    message = f"{len(ignored)} files were passed over (first: {ignored[0]})"
    return [Finding("files passed over", "warning", message, ignored[:MAX_ITEMS], {"files": len(ignored)})]


def _picture_findings(selected: Selection, facts: ImageFacts, counts: Counts, contract: InputContract) -> list[Finding]:
    grouped = any(row.group != row.path for row in selected.rows)
    return [
        *copies_within(facts, selected.splits, selected.paths),
        class_counts(counts),
        class_shift(counts),
        picture_shift(facts.brightness, "brightness", selected.splits, grouped=grouped),
        picture_shift(facts.contrast, "contrast", selected.splits, grouped=grouped),
        resolution(facts, selected.paths, contract),
        certifiable_margin(sum(counts["test"].values())),
    ]

"""Runs the test split through every step of the way: torch, the float graph, the chosen graph, the runtime, raw files.

Nothing else in edgeft reads the test split.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeft import catalog
from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DataError, IntegrityError
from edgeft.core.events import EventSink, Progress
from edgeft.core.exporter import Exporter, Session
from edgeft.runtime.encode import open_encoder
from edgeft.runtime.preprocess import read_image_bytes
from edgeft.runtime.session import OUTPUT, Model, session_options

Feeds = dict[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float32]

LOGITS = "logits"
_BATCH = 32


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The test split of a dataset.

    Args:
        data: an `edgeft.data.dataset:Dataset`.
        rows: int64 [n], its test rows.
        labels: int64 [n].
    """

    data: Any
    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path) -> "HeldOut":
        """Open the data stage's folder.

        Raises:
            DataError: the split is empty or lacks a class.
        """
        data = catalog.resolve("edgeft.data.dataset:Dataset").open(folder)
        rows = data.indices("test")
        if not len(rows):
            raise DataError(f"{folder}: the test split is empty", hint="give data.split a test share")
        labels = data.labels[rows]
        for index, name in enumerate(data.classes):
            if not (labels == index).any():
                raise DataError(f"{folder}: the test split has no row of class {name!r}", hint="change data.split")
        return cls(data, rows, labels)

    def slices(self) -> dict[str, list[str]]:
        """Return by name what each image belongs to, length n."""
        rows = [self.data.rows[row] for row in self.rows]
        return {name: [row.slices[name] for row in rows] for name in rows[0].slices}

    def chunks(self, size: int) -> Iterator[Feeds]:
        """Yield arrays [<= size, ...] by the graph's input, in order; the rest stays on disk."""
        for start in range(0, len(self.rows), size):
            yield self.data.feeds(self.rows[start : start + size])

    def first(self, most: int) -> Any:  # noqa: ANN401 - an edgeft.data.dataset:Part
        """Return the first rows, `most` at most, as the graph takes them."""
        return self.data.part(self.rows[:most])


def require_classes(split: HeldOut, file: Path) -> None:
    """Prove that the step which wrote `file` (model.json, graph.json) has the data's class order.

    Raises:
        IntegrityError: it has another.
    """
    found = json.loads(file.read_bytes())["classes"]
    if found != list(split.data.classes):
        raise IntegrityError(f"{file}: classes {found}, the data stage froze {list(split.data.classes)}")


def torch_logits(split: HeldOut, checkpoint: Path, threads: int, emit: EventSink) -> Floats:
    """Return the checkpoint's logits in torch, float32 [n, K]."""
    found: Floats = catalog.resolve("edgeft.models.predict:logits")(
        checkpoint, split.data.part(split.rows), threads, emit=emit
    )
    return found


def graph_outputs(
    split: HeldOut, graph: Path, threads: int, emit: EventSink, task: str, *, as_written: bool = False
) -> tuple[Floats, Floats]:
    """Return (logits, scores) of an ONNX graph in onnxruntime, each float32 [n, K]; see `edgeft.runtime.session`."""
    import onnxruntime as ort

    model = catalog.resolve("edgeft.graph.load:load")(graph)
    tapped = catalog.resolve("edgeft.graph.taps:with_outputs")(model, [LOGITS])
    options = session_options(threads, spinning=False, as_written=as_written)
    session = ort.InferenceSession(tapped.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits, scores = [], []
    batch = 1 if split.data.is_text else _BATCH  # a dynamic scale covers its batch: a device runs one text at a time
    for feeds in _counted(split.chunks(batch), len(split.rows), emit, task):
        found = session.run([LOGITS, OUTPUT], feeds)
        logits.append(found[0])
        scores.append(found[1])
    return np.concatenate(logits), np.concatenate(scores)


def target_outputs(split: HeldOut, graph: Path, exporter: Exporter, threads: int) -> tuple[Floats, Floats]:
    """Return (logits, scores) of an ONNX graph in the runtime of `exporter`, each float32 [n, K]."""
    outputs = catalog.resolve("edgeft.quantize.on_target:target_outputs")(exporter, threads)
    model, rows = catalog.resolve("edgeft.graph.load:load")(graph), split.data.part(split.rows)
    batch = 1 if split.data.is_text else _BATCH
    return outputs(model, LOGITS, rows, batch), outputs(model, OUTPUT, rows, batch)


def runtime_scores(split: HeldOut, session: Session, emit: EventSink) -> Floats:
    """Return the scores of a target runtime's own session, batch 1 as on the device, float32 [n, K]."""
    chunks = _counted(split.chunks(1), len(split.rows), emit, "verify runtime")
    return np.concatenate([np.asarray(session(feeds)[0], dtype=np.float32) for feeds in chunks])


def device_session(model: Path, threads: int, *, as_written: bool = False) -> Session:
    """Return what runs a lowered file as `edgeft.runtime` does, or `as_written`.

    Raises:
        IntegrityError: it is no deployment graph.
    """
    device = Model.open(model, threads=threads, as_written=as_written)
    return lambda feeds: [device.scores(feeds)]


def raw_scores(split: HeldOut, session: Session, images: Path | None, emit: EventSink) -> tuple[Floats, int]:
    """Return the scores from raw files or texts by the device's own code, and how many of them give other inputs.

    Args:
        split: the rows.
        session: runs what ships.
        images: the root of the raw images; None of texts.
        emit: where progress goes.

    Raises:
        DataError: a file is missing, damaged, or no longer what the data stage read.
    """
    tokenizer = split.data.folder / "tokenizer.json"
    encode = open_encoder(split.data.contract, tokenizer.read_bytes() if split.data.is_text else None)
    scores: list[Floats] = []
    different = 0
    for done, row in enumerate(split.rows):
        entry = split.data.rows[row]
        source = entry.source if images is None else _raw_file(images, entry)
        feeds, expected = encode(source, entry.path), split.data.feeds(split.rows[done : done + 1])
        different += any(not np.array_equal(feeds[name], expected[name]) for name in expected)
        scores.append(np.asarray(session(feeds)[0], dtype=np.float32))
        emit(Progress("verify raw inputs", done + 1, len(split.rows)))
    return np.concatenate(scores), different


def _raw_file(images: Path, entry: Any) -> bytes:  # noqa: ANN401 - an edgeft.data.dataset:Row
    data = read_image_bytes(images / entry.path)
    if sha256_bytes(data) != entry.sha256:
        raise DataError(f"{images / entry.path}: changed since the data stage read it", hint="run the build again")
    return data


def _counted(chunks: Iterator[Feeds], total: int, emit: EventSink, task: str) -> Iterator[Feeds]:
    done = 0
    for feeds in chunks:
        yield feeds
        done += len(next(iter(feeds.values())))
        emit(Progress(task, done, total))

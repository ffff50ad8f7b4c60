"""What `bench` and `compare` look at: a bundle or an ONNX file, with inputs to time it on and data to judge it on."""

import io
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeft import catalog
from edgeft.core.atomic import write_atomic
from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DataError, UsageError
from edgeft.core.stage import Json
from edgeft.runtime.encode import Contract, Feeds, Source, one_row
from edgeft.runtime.predictor import open_predictor
from edgeft.runtime.preprocess import IMAGE_SUFFIXES, INPUT, InputContract, load_pixels
from edgeft.runtime.session import AnyModel, Model, TensorSpec
from edgeft.runtime.text import TextContract, TextEncoder, padded
from edgeft.runtime.worker import Request
from edgeft.verify.decision import HIGHEST, Decision

GOLDEN_INPUT, NOISE_INPUT = "golden", "noise"
_TIMED = 16
"""Images that are timed, in turns."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model and where it is from.

    Args:
        path: the bundle folder or the .onnx file, as it was given.
        model: the ONNX file.
        sha256: of the ONNX file.
        inputs: what the graph takes.
        name: of the bundle, or of the file.
        classes: names in order; empty for a bare file.
        contract: how an image or a text becomes its input; None for a bare file.
        golden: the bundle's own inputs, arrays [G, ...] by input; None for a bare file.
        raw: the image files or the texts that the first of them were made from.
        decision: how its scores become decisions; the highest score for a bare file.
        tokenizer: of texts, the tokenizer's file.
    """

    path: Path
    model: Path
    sha256: str
    inputs: tuple[TensorSpec, ...]
    name: str
    classes: tuple[str, ...] = ()
    contract: Contract | None = None
    golden: Feeds | None = None
    raw: tuple[Source, ...] = ()
    decision: Decision = HIGHEST
    tokenizer: bytes | None = None

    @property
    def takes_texts(self) -> bool:
        """Whether it is a bundle that decides texts."""
        return isinstance(self.contract, TextContract)

    def to_json(self) -> dict[str, Json]:
        """Return what a reader must know to tell one subject from another."""
        return {
            "path": str(self.path),
            "name": self.name,
            "sha256": self.sha256,
            "classes": list(self.classes),
            "input": [str(item) for item in self.inputs],
            "contract": None if self.contract is None else self.contract.to_json(),
            "decision": self.decision.to_json(self.classes),
        }

    def scores(self, arrays: Feeds, threads: int) -> npt.NDArray[np.float32]:
        """Return float32 [N, K] for `arrays` [N, ...] by input, one row at a time.

        Raises:
            DataError: its first output is no row of scores.
        """
        model = AnyModel.open(self.model, threads=threads)
        count = len(next(iter(arrays.values())))
        found = [model.run(one_row(arrays, i))[0] for i in range(count)]
        if any(scores.ndim != 2 or len(scores) != 1 for scores in found):  # noqa: PLR2004 - [1, K]
            raise DataError(f"{self.path}: an output of shape {list(found[0].shape)} for one input, expected [1, K]")
        return np.concatenate(found).astype(np.float32)


def open_subject(path: Path) -> Subject:
    """Open a bundle folder, its digests proven, or an .onnx file.

    Raises:
        IntegrityError: the bundle is not what its manifest says, or the file is no model.
        DeviceError: it cannot be read.
    """
    from edgeft.bundle.golden import from_bytes
    from edgeft.runtime.manifest import GOLDEN, MODEL, TOKENIZER, read_files

    if path.is_dir():
        manifest, contents = read_files(path)
        golden = from_bytes(contents[GOLDEN], str(path / GOLDEN))
        model = Model(contents[MODEL], str(path / MODEL))
        open_predictor(manifest, contents, path)  # refuses a graph that is not the manifest's
        return Subject(
            path,
            path / MODEL,
            sha256_bytes(contents[MODEL]),
            model.inputs,
            manifest.name,
            manifest.classes,
            manifest.input,
            golden.inputs,
            tuple(golden.sources()),
            manifest.decision,
            contents.get(TOKENIZER),
        )
    opened = AnyModel.open(path)
    return Subject(path, path, sha256_bytes(path.read_bytes()), opened.inputs, path.stem)


def require_alike(base: Subject, new: Subject) -> None:
    """Refuse two subjects that cannot be held against each other.

    Raises:
        DataError: they take other inputs, prepare images otherwise, or tell other classes apart.
    """
    pairs = {
        "input": ([str(item) for item in base.inputs], [str(item) for item in new.inputs]),
        "classes": (list(base.classes), list(new.classes)),
        "preprocessing": tuple(None if side.contract is None else side.contract.to_json() for side in (base, new)),
    }
    for what, (one, other) in pairs.items():
        both_known = what == "input" or (one and other)
        if both_known and one != other:
            raise DataError(
                f"{base.path} and {new.path} cannot be compared: {what} {one} against {other}",
                hint="compare two bundles of one task, e.g. the one of the main branch with the one of your change",
            )


def requests(
    subject: Subject, data: str | None, folder: Path, *, threads: int, spinning: bool, samples: int, seconds: float
) -> tuple[Request, Request | None]:
    """Return what times the model alone, and what times it from raw files where there are any.

    Args:
        subject: what is timed.
        data: "golden" (the bundle's own images or texts), "noise", a folder of images, or an .npy or .npz of inputs;
            None takes golden where there is a bundle, else noise.
        folder: where the inputs are written for the timed processes.
        threads: intra-op threads.
        spinning: whether idle threads spin.
        samples: a process.
        seconds: a process at most.

    Raises:
        UsageError: a bare file has no golden images, or images need a bundle to say how they are prepared.
        DataError: the folder holds no image, or one cannot be read.
    """
    plain = Request(str(subject.model), threads, spinning, samples, 3, seconds)
    data = data or (NOISE_INPUT if subject.golden is None else GOLDEN_INPUT)
    if data == NOISE_INPUT:
        return plain, None
    if data == GOLDEN_INPUT:
        if subject.golden is None or subject.contract is None:
            raise UsageError(
                f"{subject.path}: a bare model has no golden images", hint="give --input DATA, or a bundle"
            )
        if subject.takes_texts:
            return _texts(subject, subject.golden, plain, folder)
        paths = [folder / f"raw_{index}" for index in range(len(subject.raw))]
        for path, raw in zip(paths, subject.raw, strict=True):
            write_atomic(path, raw if isinstance(raw, bytes) else b"")
        pixels = subject.golden[INPUT][:_TIMED]
    elif Path(data).is_dir():
        if not isinstance(subject.contract, InputContract):
            raise UsageError(
                f"{data}: a bare model does not say how an image becomes its input",
                hint="give a bundle, or an .npz of inputs",
            )
        paths = _spread(_images(Path(data)))
        pixels = np.stack([load_pixels(path, subject.contract) for path in paths])
    else:
        return replace(plain, inputs=data), None
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    inputs = folder / f"{GOLDEN_INPUT if data == GOLDEN_INPUT else 'images'}.npy"
    write_atomic(inputs, buffer.getvalue())
    model_only = replace(plain, inputs=str(inputs))
    if not paths or subject.contract is None:
        return model_only, None
    return model_only, replace(plain, images=tuple(map(str, paths)), contract=subject.contract.to_json())


def _texts(subject: Subject, golden: Feeds, plain: Request, folder: Path) -> tuple[Request, Request | None]:
    """Return what times a text bundle alone, and from its raw texts."""
    if subject.contract is None or subject.tokenizer is None:
        raise UsageError(f"{subject.path}: a bare model has no golden texts", hint="give --input DATA, or a bundle")
    buffer, inputs, tokenizer = io.BytesIO(), folder / f"{GOLDEN_INPUT}.npz", folder / "tokenizer.json"
    arrays: dict[str, Any] = {name: values[:_TIMED] for name, values in golden.items()}
    np.savez(buffer, **arrays)
    write_atomic(inputs, buffer.getvalue())
    write_atomic(tokenizer, subject.tokenizer)
    contract = subject.contract.to_json()
    return (
        replace(plain, inputs=str(inputs), ragged=True),
        replace(plain, texts=subject.raw, contract=contract, tokenizer=str(tokenizer)),
    )


def read_labelled(data: Path, subject: Subject) -> tuple[Feeds, npt.NDArray[np.int64]]:
    """Return arrays [N, ...] by input and labels int64 [N] to judge `subject` on.

    Args:
        data: a folder with one folder of images for each class; for texts a table with the columns `text` and `label`;
            or an .npz with `pixels` and `labels`.
        subject: says how images or texts are prepared and which classes there are.

    Raises:
        DataError: there is no image or text, a class is none of the bundle's, or arrays are missing or do not fit.
        UsageError: images need a bundle.
    """
    if subject.takes_texts:
        return _read_texts(data, subject)
    if not data.is_dir():
        return _read_arrays(data, subject)
    if not isinstance(subject.contract, InputContract):
        raise UsageError(f"{data}: class folders need a bundle, which names the classes", hint="give an .npz instead")
    folders = sorted(child for child in data.iterdir() if child.is_dir() and not child.name.startswith("."))
    strange = [child.name for child in folders if child.name not in subject.classes]
    if strange or not folders:
        raise DataError(
            f"{data}: {'the folder ' + repr(strange[0]) if strange else 'no folder'} is a class of {subject.path}: "
            f"expected {', '.join(subject.classes)}",
            hint="one folder of images for each class",
        )
    pixels, labels = [], []
    for child in folders:
        for path in _images(child):
            pixels.append(load_pixels(path, subject.contract))
            labels.append(subject.classes.index(child.name))
    return {INPUT: np.stack(pixels)}, np.asarray(labels, np.int64)


def _read_texts(path: Path, subject: Subject) -> tuple[Feeds, npt.NDArray[np.int64]]:
    if subject.contract is None or not isinstance(subject.contract, TextContract) or subject.tokenizer is None:
        raise UsageError(f"{path}: texts need a bundle, which says how they become tokens")
    table = catalog.resolve("edgeft.data.sources.rows:read_table")(path, delimiter=None, names=None)
    columns = {"text": "text", "pair": "pair" if subject.contract.pair else None, "label": "label"}
    config = catalog.resolve("edgeft.data.text.config:TextColumns")(**columns)
    rows = catalog.resolve("edgeft.data.sources.rows:read_texts")(table, config)
    strange = next((row for row in rows if row.label not in subject.classes), None)
    if strange is not None:
        raise DataError(
            f"{strange.where}: label {strange.label!r} is no class of {subject.path}: {', '.join(subject.classes)}",
            hint="name the columns text and label, the labels as the bundle does",
        )
    texts = [row.text if row.pair is None else (row.text, row.pair) for row in rows]
    encoder = TextEncoder(subject.contract, subject.tokenizer)
    labels = [subject.classes.index(row.label) for row in rows]
    return padded(encoder.tokens(texts), subject.contract), np.asarray(labels, np.int64)


def _read_arrays(path: Path, subject: Subject) -> tuple[Feeds, npt.NDArray[np.int64]]:
    hint = "a folder with one folder of images for each class, or np.savez(..., pixels=uint8 [N, H, W, 3], labels=[N])"
    try:
        with path.open("rb") as file:  # np.load leaves a damaged file open that it opened itself
            arrays = np.load(file, allow_pickle=False)
            pixels, labels = arrays["pixels"], arrays["labels"]
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: no pixels and labels to judge by ({error})", hint=hint) from error
    spec = subject.inputs[0]
    fits = pixels.ndim == len(spec.shape) and all(
        wanted == size or not isinstance(wanted, int)
        for wanted, size in zip(spec.shape[1:], pixels.shape[1:], strict=True)
    )
    if len(subject.inputs) != 1 or pixels.dtype != spec.dtype or not fits:
        raise DataError(f"{path}: pixels {pixels.dtype} {list(pixels.shape)}, the model takes {spec}", hint=hint)
    if not len(pixels) or labels.shape != (len(pixels),) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: labels {labels.dtype} {list(labels.shape)} for {len(pixels)} images, expected int64 [N], N > 0",
            hint=hint,
        )
    return {spec.name: pixels}, labels.astype(np.int64)


def _images(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not found:
        raise DataError(f"{folder}: holds no image", hint=f"edgeft reads {' '.join(IMAGE_SUFFIXES)}")
    return found


def _spread(paths: list[Path]) -> list[Path]:
    step = max(1, len(paths) // _TIMED)
    return paths[::step][:_TIMED]

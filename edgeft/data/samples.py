"""What `edgeft quantize` calibrates and judges on: arrays as the model takes them, or a folder of images.

    .npz      an array named like each of the model's inputs, and optionally `labels`, int64 [N]
    .npy      the array of its one input
    folder    class folders (sorted names are the classes, in order), or images without labels, for one input

Images are decoded and resized by the code that the device uses. A uint8 input takes the pixels themselves; a float
input takes (pixel - mean) / std.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeft.core.errors import DataError, UsageError
from edgeft.core.events import EventSink, ignore
from edgeft.data.decode import read_images
from edgeft.data.sources.folder import read_folder
from edgeft.runtime.preprocess import IMAGE_SUFFIXES, InputContract

Feeds: TypeAlias = dict[str, NDArray[Any]]
"""Arrays [n, ...] by input name."""

LABELS = "labels"
_IMAGE_RANK = 3
_RGB = 3
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input of a model.

    Args:
        name: the tensor's name.
        dtype: numpy's name of its type.
        shape: sizes after the batch axis; None where the model leaves one open.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name!r}: {self.dtype} [N, {sizes}]"


@dataclass(frozen=True, slots=True)
class Normalisation:
    """(pixel - mean) / std, in pixel units (0 to 255): one number each, or one for each of the three channels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """N rows of a model's inputs; `samples[a:b]` gives them as the model takes them.

    Args:
        source: the file or folder.
        arrays: [N, ...] by input name, as stored: what the model takes, or pixels uint8 [N, H, W, 3].
        labels: int64 [N], or None.
        classes: names in order, where folders name them.
        specs: the model's inputs.
        normalisation: of pixels; None where `arrays` are what the model takes.
        channels_first: whether pixels become [N, 3, H, W].
    """

    source: Path
    arrays: Mapping[str, NDArray[Any]]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None
    specs: tuple[InputSpec, ...]
    normalisation: Normalisation | None = None
    channels_first: bool = False

    def __len__(self) -> int:
        return len(self.arrays[self.specs[0].name])

    def __getitem__(self, rows: slice) -> Feeds:
        return {spec.name: self._taken(spec, self.arrays[spec.name][rows]) for spec in self.specs}

    def _taken(self, spec: InputSpec, values: NDArray[Any]) -> NDArray[Any]:
        if self.normalisation is not None:
            mean, std = (np.asarray(side, np.float32) for side in (self.normalisation.mean, self.normalisation.std))
            values = ((values.astype(np.float32) - mean) / std).astype(spec.dtype)
        return np.ascontiguousarray(np.moveaxis(values, -1, 1)) if self.channels_first else np.asarray(values)

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """The sizes after the batch axis by input, as the model takes them."""
        return {name: tuple(values.shape[1:]) for name, values in self[:1].items()}

    def require_classes(self, count: int) -> None:
        """Prove that the labels fit a model with `count` outputs.

        Raises:
            DataError: a label is outside 0..count-1, or there are more or fewer class folders than outputs.
        """
        if self.classes is not None and len(self.classes) != count:
            raise DataError(
                f"{self.source}: {len(self.classes)} class folders ({_listed(self.classes)}), "
                f"but the model has {count} outputs",
                hint="folders name all classes, sorted; else pass an .npz with labels",
            )
        if self.labels is not None and (self.labels.min() < 0 or self.labels.max() >= count):
            raise DataError(
                f"{self.source}: array {LABELS!r} holds {self.labels.min()}..{self.labels.max()}, "
                f"but the model has {count} outputs: expected 0..{count - 1}"
            )


def read_samples(  # noqa: PLR0913 - where, what for, how much, and how images become inputs
    path: Path,
    specs: tuple[InputSpec, ...],
    *,
    normalisation: Normalisation | None = None,
    limit: int | None = None,
    seed: int = 0,
    target: Path,
    threads: int = 1,
    emit: EventSink = ignore,
) -> Samples:
    """Read `path` for the model inputs `specs`.

    Args:
        path: .npz, .npy, or a folder of images.
        specs: the model's inputs.
        normalisation: of images for a float input.
        limit: how many rows at most, drawn without replacement and kept in their order; None takes all.
        seed: of the draw.
        target: the .npy file that keeps the pixels of images while they are needed.
        threads: how many images are read at a time.
        emit: where progress goes.

    Raises:
        DataError: the file or an array in it is missing, empty, of another type or shape, or an image is unreadable.
        UsageError: images need a normalisation or a size that was not given, or arrays were given one.
    """
    if path.is_dir():
        paths, folder_labels, classes = _listing(path)
        spec = _only(path, specs)
        contract, channels_first = _image_contract(path, spec, normalisation)
        rows = _drawn(len(paths), limit, seed)
        pixels = _read_pixels(path, [paths[row] for row in rows], contract, target, threads, emit)
        drawn = None if folder_labels is None else np.asarray(folder_labels, np.int64)[rows]
        return Samples(path, {spec.name: pixels}, drawn, classes, specs, normalisation, channels_first)
    if normalisation is not None:
        raise UsageError(
            f"--mean and --std are for images, and {path} is a file", hint="arrays hold what the model takes: drop them"
        )
    arrays, labels = _read_arrays(path, specs)
    count = len(arrays[specs[0].name])
    for spec in specs:
        _check_values(path, arrays[spec.name], spec, count)
    _check_labels(path, labels, count)
    rows = _drawn(count, limit, seed)
    if limit is not None:
        arrays = {name: values[rows] for name, values in arrays.items()}
        labels = None if labels is None else labels[rows]
    return Samples(path, arrays, None if labels is None else labels.astype(np.int64), None, specs)


def _only(path: Path, specs: tuple[InputSpec, ...]) -> InputSpec:
    """Return the one input that images or an .npy can be for."""
    if len(specs) != 1:
        raise UsageError(
            f"{path}: holds one array, but the model takes {len(specs)} inputs ({', '.join(map(str, specs))})",
            hint="pass an .npz with an array named like each input",
        )
    return specs[0]


def _drawn(count: int, limit: int | None, seed: int) -> NDArray[np.int64]:
    """Return which rows are read: all in order without a limit, else as drawn: the first few are of all kinds."""
    return np.arange(count) if limit is None else np.random.default_rng(seed).permutation(count)[:limit]


def _read_arrays(path: Path, specs: tuple[InputSpec, ...]) -> tuple[Feeds, NDArray[Any] | None]:
    hint = (
        f"expected .npy, .npz with the array {' and '.join(repr(spec.name) for spec in specs)}, or a folder of images"
    )
    if not path.exists():
        raise DataError(f"{path}: no such file or folder", hint=hint)
    if path.suffix not in {".npy", ".npz"}:
        raise DataError(f"{path}: not an array file and no folder", hint=hint)
    try:
        loaded = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {_only(path, specs).name: loaded}, None
        with loaded:
            _check_names(path, loaded.files, specs)
            arrays = {spec.name: loaded[spec.name] for spec in specs}
            return arrays, loaded[LABELS] if LABELS in loaded.files else None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as arrays ({error})", hint=hint) from error


def _check_names(path: Path, found: Sequence[str], specs: tuple[InputSpec, ...]) -> None:
    names = [spec.name for spec in specs]
    if set(found) - {LABELS} != set(names):
        pairs = ", ".join(f"{name!r}: x{index or ''}" for index, name in enumerate(names))
        raise DataError(
            f"{path}: holds the arrays {_listed(found) or 'none'}; expected {' and '.join(map(repr, names))}, like the "
            f"model's inputs, and optionally {LABELS!r}",
            hint=f"np.savez({path.name!r}, **{{{pairs}, 'labels': y}})",
        )


def _check_values(path: Path, values: NDArray[Any], spec: InputSpec, count: int) -> None:
    where = f"{path}: array {spec.name!r}"
    if values.dtype != np.dtype(spec.dtype):
        raise DataError(
            f"{where} is {values.dtype}, but the model takes {spec}", hint=f"array.astype(np.{np.dtype(spec.dtype)})"
        )
    sizes = zip(values.shape[1:], spec.shape, strict=False)
    if values.ndim != len(spec.shape) + 1 or any(wanted not in {None, size} for size, wanted in sizes):
        raise DataError(f"{where} has shape {list(values.shape)}, but the model takes {spec}")
    if not values.size:
        raise DataError(f"{where} is empty: shape {list(values.shape)}")
    if len(values) != count:
        raise DataError(f"{where} has {len(values)} rows, the first input has {count}")


def _check_labels(path: Path, labels: NDArray[Any] | None, rows: int) -> None:
    if labels is None:
        return
    if labels.dtype.kind not in "iu" or labels.shape != (rows,):
        raise DataError(
            f"{path}: array {LABELS!r} is {labels.dtype} {list(labels.shape)}, expected int64 [{rows}]: "
            "one class index for each row"
        )


def _read_pixels(
    root: Path, paths: Sequence[str], contract: InputContract, target: Path, threads: int, emit: EventSink
) -> NDArray[np.uint8]:
    """Return uint8 [N, H, W, 3] of all `paths`, mapped from `target`."""
    failures = read_images(root, paths, contract, target, threads=threads, emit=emit).failures
    if failures:
        first = min(failures)
        raise DataError(
            f"{root}: {failures[first]} ({len(failures)} of {len(paths)} images cannot be read)",
            hint="restore the file or take it out: none is skipped",
        )
    pixels: NDArray[np.uint8] = np.load(target, mmap_mode="r")
    return pixels


def _image_contract(root: Path, spec: InputSpec, normalisation: Normalisation | None) -> tuple[InputContract, bool]:
    """Return how images become pixels for `spec`, and whether channels come first in the model."""
    height, width, channels_first = _image_size(root, spec)
    if spec.dtype == "uint8" and normalisation is not None:
        raise UsageError(
            f"the model's input {spec} takes pixels as they are; --mean and --std have nothing to act on",
            hint="drop --mean and --std",
        )
    if spec.dtype != "uint8" and normalisation is None:
        raise UsageError(
            f"{root}: images for the float input {spec} need --mean and --std: the model takes (pixel - mean) / std",
            hint="in pixel units, e.g. --mean 123.675,116.28,103.53 --std 58.395,57.12,57.375 for most ImageNet models",
        )
    plain = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # normalised after decoding, see Samples
    return InputContract(height, width, "squash", None, "bilinear", *plain), channels_first


def _image_size(root: Path, spec: InputSpec) -> tuple[int, int, bool]:
    """Return height, width and whether channels come first."""
    if len(spec.shape) != _IMAGE_RANK or spec.dtype not in {"uint8", "float32", "float16", "float64"}:
        raise UsageError(f"{root}: images do not fit the model's input {spec}", hint="pass an .npz or .npy instead")
    sizes = [size for size in spec.shape if size is not None]
    if len(sizes) != _IMAGE_RANK:
        raise UsageError(
            f"{root}: the model's input {spec} leaves sizes open, so the size of the images is not known",
            hint="give the sizes after the batch axis, e.g. --input-shape 3,224,224",
        )
    first, second, third = sizes
    if third == _RGB and (spec.dtype == "uint8" or first != _RGB):
        return first, second, False
    if first == _RGB:
        return second, third, True
    raise UsageError(
        f"{root}: images have three channels, but no channel axis of the model's input {spec} has size 3",
        hint="pass an .npz or .npy instead",
    )


def _listing(root: Path) -> tuple[list[str], list[int] | None, tuple[str, ...] | None]:
    """Return relative paths, labels and classes; the last two are None for a flat folder."""
    if any(child.is_dir() and not child.name.startswith(".") for child in root.iterdir()):
        table = read_folder(root)
        if "split" in table.columns:
            raise DataError(
                f"{root}: holds the splits {_listed(sorted(set(map(str, table.columns['split']))))}, expected classes",
                hint=f"name one of them, e.g. {root / 'val'}",
            )
        names = [str(cell) for cell in table.columns["class"]]
        classes = tuple(sorted(set(names)))
        return [str(cell) for cell in table.columns["path"]], [classes.index(name) for name in names], classes
    paths = sorted(child.name for child in root.iterdir() if child.suffix.lower() in IMAGE_SUFFIXES and child.is_file())
    if not paths:
        raise DataError(f"{root}: holds no image", hint=f"edgeft reads {' '.join(IMAGE_SUFFIXES)}")
    return paths, None, None


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + rest

"""A quick look at data that no recipe describes yet: which files, classes, columns and splits are there.

Names and a first rows are read, no image is opened: `edgeft plan` and `edgeft build` do the thorough reading.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeft.core.errors import DataError
from edgeft.runtime.preprocess import IMAGE_SUFFIXES

TABLE_SUFFIXES = frozenset({".csv", ".parquet", ".tsv", ".txt"})
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
OK_NAMES = ("functional", "good", "healthy", "no_defect", "non_defective", "normal", "ok", "pass")

_LABEL_NAMES = ("label", "class", "category", "target", "defect")
_GROUP_NAMES = ("group", "panel", "patient", "serial", "batch", "lot", "board", "wafer", "module", "scene", "session")
_SPLIT_COLUMNS = ("split", "subset", "partition", "fold")
_FEW = 50


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found.

    Args:
        structure: "folder" or "table".
        classes: number of images by class name; empty where the label is a number.
        splits: number of images by split, where the data names splits.
        n: images in all.
        columns: the table's columns; empty for a folder.
        header: whether the table's first line names them.
        input: column with the image paths.
        label: column with the class.
        group: column with what belongs together, or None.
        split: column that names the split, or None.
        images: folder that the paths are relative to, where it is not the table's own.
        score: whether `label` holds numbers in 0..1 rather than names.
        delimiter: the separator to name in the recipe, or None where it is found again.
        ok_class: the class that means "nothing found", judged by its name.
    """

    structure: str
    classes: dict[str, int]
    splits: dict[str, int]
    n: int
    columns: tuple[str, ...] = ()
    header: bool = True
    input: str | None = None
    label: str | None = None
    group: str | None = None
    split: str | None = None
    images: str | None = None
    score: bool = False
    delimiter: str | None = None
    ok_class: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return what `init --json` prints under "found"."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def survey(path: Path) -> Survey:
    """Look at a folder of class folders, or at a table of paths and labels.

    Raises:
        DataError: there is nothing at `path`, or nothing that can be classified.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder", hint="edgeft init takes an image folder or a table")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(
            f"{path}: not a table (expected {', '.join(sorted(TABLE_SUFFIXES))}) and not a folder",
            hint="edgeft init takes an image folder or a table with a path and a label column",
        )
    return _table(path)


def ok_class(classes: Sequence[str]) -> str | None:
    """Return the class that means "nothing found", judged by its name, or None."""
    return next((name for name in classes if name.lower().replace("-", "_").replace(" ", "_") in OK_NAMES), None)


def _folder(path: Path) -> Survey:
    children = [child for child in sorted(path.iterdir()) if child.is_dir() and not child.name.startswith(".")]
    split_folders = [child for child in children if child.name.lower() in SPLIT_NAMES]
    roots = split_folders or [path]
    classes: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    for root in roots:
        for folder in sorted(root.iterdir()):
            count = _count_images(folder) if folder.is_dir() and not folder.name.startswith(".") else 0
            if count:
                classes[folder.name] += count
                if split_folders:
                    splits[SPLIT_NAMES[root.name.lower()]] += count
    if len(classes) < 2:  # noqa: PLR2004 - a choice needs two
        tables = [child.name for child in sorted(path.iterdir()) if child.suffix.lower() in TABLE_SUFFIXES]
        hint = (
            f"edgeft init {path / tables[0]}" if tables else f"expected {path}/CLASS/image.png for at least two classes"
        )
        raise DataError(f"{path}: {len(classes)} folder(s) with images, at least two classes are needed", hint=hint)
    return Survey("folder", dict(classes), dict(splits), sum(classes.values()), ok_class=ok_class(tuple(classes)))


def _count_images(folder: Path) -> int:
    return sum(1 for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)


def _table(path: Path) -> Survey:
    rows, delimiter = _read(path)
    header = not any(_is_image(cell) for cell in rows[0])
    names = tuple(rows[0]) if header else _invented(rows[0])
    body = rows[1:] if header else rows
    if not body:
        raise DataError(f"{path}: no rows below the header")
    columns = {name: [row[index] for row in body if index < len(row)] for index, name in enumerate(names)}
    images = next((name for name, cells in columns.items() if all(map(_is_image, cells[:_FEW]))), None)
    if images is None:
        raise DataError(f"{path}: no column holds image paths; columns: {', '.join(names)}")
    label = _label_column({name: cells for name, cells in columns.items() if name != images})
    if label is None:
        raise DataError(f"{path}: no column looks like a label; columns: {', '.join(names)}")
    score = _is_score(columns[label])
    split = next((name for name in names if name.lower() in _SPLIT_COLUMNS), None)
    classes = {} if score else dict(Counter(columns[label]))
    return Survey(
        structure="table",
        classes=classes,
        splits=dict(Counter(columns[split])) if split else {},
        n=len(body),
        columns=names,
        header=header,
        input=images,
        label=label,
        group=next((name for name in names if name.lower() in _GROUP_NAMES), None),
        split=split,
        images=_images_folder(path, columns[images][0]),
        score=score,
        delimiter=delimiter,
        ok_class=ok_class(tuple(classes)),
    )


def _read(path: Path) -> tuple[list[list[str]], str | None]:
    if path.suffix.lower() == ".parquet":
        from pyarrow import parquet

        table = parquet.read_table(path)
        return [list(table.column_names), *([str(cell) for cell in row.values()] for row in table.to_pylist())], None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path}: the file is empty")
    delimiter = _delimiter(lines)
    if delimiter is None:
        return [line.split() for line in lines], " "
    return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)], None


def _delimiter(lines: Sequence[str]) -> str | None:
    few = lines[:_FEW]
    for candidate in (",", "\t", ";", "|"):
        if few[0].count(candidate) and len({line.count(candidate) for line in few}) == 1:
            return candidate
    return None


def _invented(first: Sequence[str]) -> tuple[str, ...]:
    seen = 0
    names = []
    for cell in first:
        if _is_image(cell) and "file" not in names:
            names.append("file")
        else:
            seen += 1
            names.append("label" if seen == 1 else f"column{len(names)}")
    return tuple(names)


def _label_column(columns: dict[str, list[str]]) -> str | None:
    named = [name for known in _LABEL_NAMES for name in columns if name.lower() == known]
    few = [
        name for name, cells in columns.items() if 1 < len(set(cells)) <= _FEW and name.lower() not in _SPLIT_COLUMNS
    ]
    return next(iter([*named, *few]), None)


def _is_image(cell: str) -> bool:
    return Path(cell).suffix.lower() in IMAGE_SUFFIXES


def _is_score(cells: Sequence[str]) -> bool:
    try:
        values = {float(cell) for cell in cells}
    except ValueError:
        return False
    return len(values) > 2 and min(values) >= 0 and max(values) <= 1  # noqa: PLR2004 - 0 and 1 alone are two classes


def _images_folder(table: Path, first: str) -> str | None:
    for folder in (table.parent, table.parent.parent, table.parent / "images"):
        if (folder / first).is_file():
            return None if folder == table.parent else str(folder)
    raise DataError(
        f"{table}: its first image {first!r} is not at {table.parent / first}",
        hint="paths in the table are relative to the table's folder, its parent, or its images/ folder",
    )

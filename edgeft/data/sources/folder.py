"""A tree of class folders, with or without split folders above them.

images/ok/1.png                  class "ok"
images/train/ok/1.png            split "train", class "ok", where all top folders are called train, val or test
"""

from collections.abc import Sequence
from pathlib import Path

from edgeft.core.errors import DataError
from edgeft.data.sources.table import Table
from edgeft.runtime.preprocess import IMAGE_SUFFIXES

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""How splits are called in folders and split columns."""


def read_folder(root: Path) -> Table:
    """List the images below `root` in sorted order, with the columns path, file, class and, if there are, split.

    Raises:
        DataError: there is no class folder, a class folder holds no image, or class folders stand beside split folders.
    """
    bundles = [folder for folder in _subfolders(root) if any(folder.glob("*/manifest.json"))]
    folders = [folder for folder in _subfolders(root) if folder not in bundles]
    if not folders:
        raise DataError(f"{root}: no class folder, expected one folder of images for each class")
    split_folders = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    paths: list[str] = []
    classes: list[str] = []
    splits: list[str] = []
    ignored = [f"{path.name}: stands beside the folders" for path in _files(root, recursive=False)]
    ignored += [f"{folder.name}: holds bundles that edgeft built" for folder in bundles]
    by_split = len(split_folders) > 1
    if by_split and len(split_folders) < len(folders):
        other = next(folder for folder in folders if folder not in split_folders)
        raise DataError(
            f"{other}: stands beside the split folders {_listed(split_folders)}",
            hint="keep only train, val and test there, or only class folders",
        )
    for above in split_folders if by_split else [root]:
        for folder in _class_folders(above) if by_split else folders:
            images, others = _images(folder, root)
            ignored += others
            paths += images
            classes += [folder.name] * len(images)
            splits += [SPLIT_NAMES.get(above.name.lower(), above.name)] * len(images)
    columns = {
        "path": paths,
        "file": [path.rpartition("/")[2] for path in paths],
        "class": classes,
    }
    if by_split:
        columns["split"] = splits
    return Table(root, columns, lambda index: paths[index], tuple(ignored))


def _class_folders(above: Path) -> list[Path]:
    folders = _subfolders(above)
    if not folders:
        raise DataError(f"{above}: no class folder, expected one folder of images for each class")
    return folders


def _images(folder: Path, root: Path) -> tuple[list[str], list[str]]:
    files = _files(folder, recursive=True)
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        found = sorted({path.suffix or path.name for path in files})
        raise DataError(
            f"{folder}: the class {folder.name!r} has no image"
            + (f" (found {', '.join(found[:5])})" if found else " (the folder is empty)"),
            hint=f"remove the folder, or add images ({' '.join(IMAGE_SUFFIXES)})",
        )
    others = [path.relative_to(root).as_posix() for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]
    return [path.relative_to(root).as_posix() for path in images], [f"{name}: not an image" for name in others]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path, *, recursive: bool) -> list[Path]:
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(
        path
        for path in found
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _listed(folders: Sequence[Path]) -> str:
    return ", ".join(folder.name for folder in folders)

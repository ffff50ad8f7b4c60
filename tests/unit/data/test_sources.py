from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from edgeft.core.errors import DataError
from edgeft.data.config import ColumnsConfig
from edgeft.data.sources.rows import inside, read_rows, read_table
from edgeft.data.sources.table import Table

ELPV_LINES = "images/cell0001.png  1.0                 mono\nimages/cell0002.png  0.3333333333333333  poly\n"


def table_of(tmp_path: Path, text: str, *, delimiter: str | None = None, names: tuple[str, ...] | None = None) -> Table:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return read_table(path, delimiter=delimiter, names=names)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_whitespace_without_a_header(tmp_path: Path) -> None:
    table = table_of(tmp_path, ELPV_LINES, names=("file", "probability", "type"))
    assert table.columns == {
        "file": ["images/cell0001.png", "images/cell0002.png"],
        "probability": ["1.0", "0.3333333333333333"],
        "type": ["mono", "poly"],
    }
    assert table.where(1) == "labels.csv line 2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,label\na.png,ok\nb.png,bad\n", {"file": ["a.png", "b.png"], "label": ["ok", "bad"]}),
        ("file\tlabel\na b.png\tok\n", {"file": ["a b.png"], "label": ["ok"]}),
        ("file;label\na.png;1,5\nb.png;2,5\n", {"file": ["a.png", "b.png"], "label": ["1,5", "2,5"]}),
        ("file|label\na.png|ok\n", {"file": ["a.png"], "label": ["ok"]}),
        ('file,label\n"a,b.png","say ""hi"""\n', {"file": ["a,b.png"], "label": ['say "hi"']}),
        ("\ufefffile , label\r\n\r\na.png, ok\r\n", {"file": ["a.png"], "label": ["ok"]}),
        ('file label\n"a b.png" ok\n', {"file": ["a b.png"], "label": ["ok"]}),
    ],
    ids=["comma", "tab", "semicolon beside commas", "bar", "quotes", "bom and blank lines", "quoted blanks"],
)
def test_the_delimiter_is_found(tmp_path: Path, text: str, expected: dict[str, list[str]]) -> None:
    assert table_of(tmp_path, text).columns == expected


def test_line_numbers_count_every_line(tmp_path: Path) -> None:
    table = table_of(tmp_path, 'file,label\n"a\nb.png",ok\n\nc.png,bad\n')
    assert table.where(1) == "labels.csv line 5"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "labels.csv: the table is empty"),
        ("file,label\n", {}, "a header and no rows"),
        ("file,label\na.png,ok\nb.png\n", {"delimiter": ","}, "labels.csv line 3: 1 fields, expected 2 (file, label)"),
        ("file\na.png\n", {}, "there is one column only"),
        ("a b c\nd e\n", {}, "no delimiter cuts"),
        ("images/a.png,ok\nimages/b.png,bad\n", {}, "the first line looks like data ('images/a.png')"),
        ("file,file\na,b\n", {}, "the column 'file' stands twice"),
        ("file,\na,b\n", {}, "column 2 of the header has no name"),
        ('file,label\n"a.png,ok\n', {"delimiter": ","}, "unexpected end of data"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError) as caught:
        table_of(tmp_path, text, **options)
    assert message in caught.value.message


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff\xfe,ok\n")
    with pytest.raises(DataError, match="byte 11 is not UTF-8"):
        read_table(tmp_path / "labels.csv", delimiter=None, names=None)


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file or folder"):
        read_table(tmp_path / "nowhere.csv", delimiter=None, names=None)


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    kinds = pa.array(["x", "y"]).dictionary_encode()
    content = {"file": ["a.png", "b.png"], "score": [0.25, 0.75], "bytes": [b"1", b"2"], "kind": kinds}
    parquet.write_table(pa.table(content), path)
    table = read_table(path, delimiter=None, names=None)
    assert table.columns == {"file": ["a.png", "b.png"], "score": [0.25, 0.75], "kind": ["x", "y"]}
    touch(tmp_path, "a.png", "b.png")
    rows = read_rows(table, tmp_path, ColumnsConfig(label="score > 0.5 -> bad else ok", group="kind"))
    assert [(row.path, row.label, row.group) for row in rows] == [("a.png", "ok", "x"), ("b.png", "bad", "y")]


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "labels.parquet").write_bytes(b"file,label\n")
    with pytest.raises(DataError, match=r"labels\.parquet: cannot be read as Parquet"):
        read_table(tmp_path / "labels.parquet", delimiter=None, names=None)


def test_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "ok/1.png", "ok/deep/2.JPG", "bad/3.tif", "bad/notes.txt", ".git/x.png", "ok/.hidden.png", "a.md")
    table = read_table(tmp_path, delimiter=None, names=None)
    assert table.columns == {
        "path": ["bad/3.tif", "ok/1.png", "ok/deep/2.JPG"],
        "file": ["3.tif", "1.png", "2.JPG"],
        "class": ["bad", "ok", "ok"],
    }
    assert table.ignored == ("a.md: stands beside the folders", "bad/notes.txt: not an image")
    rows = read_rows(table, tmp_path, ColumnsConfig())
    assert [(row.label, row.split) for row in rows] == [("bad", None), ("ok", None), ("ok", None)]


def test_split_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/ok/1.png", "train/bad/2.png", "Valid/ok/3.png", "test/bad/4.png")
    rows = read_rows(read_table(tmp_path, delimiter=None, names=None), tmp_path, ColumnsConfig())
    assert sorted((str(row.split), row.label) for row in rows) == [
        ("test", "bad"),
        ("train", "bad"),
        ("train", "ok"),
        ("val", "ok"),
    ]


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    touch(tmp_path, "test/1.png", "other/2.png")
    assert read_table(tmp_path, delimiter=None, names=None).columns["class"] == ["other", "test"]


def test_bundles_beside_the_classes_are_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "ok/1.png", "bad/2.png", "dist/cells/manifest.json", "dist/cells/flips/1.png")
    table = read_table(tmp_path, delimiter=None, names=None)
    assert table.columns["class"] == ["bad", "ok"]
    assert table.ignored == ("dist: holds bundles that edgeft built",)


@pytest.mark.parametrize(
    ("files", "folders", "message"),
    [
        ((), (), "no class folder"),
        (("1.png",), (), "no class folder"),
        (("ok/1.png",), ("bad",), "the class 'bad' has no image (the folder is empty)"),
        (("ok/1.png", "bad/1.heic"), (), "the class 'bad' has no image (found .heic)"),
        (("train/ok/1.png", "test/ok/1.png", "extra/ok/1.png"), (), "extra: stands beside the split folders"),
        (("train/ok/1.png", "test/1.png"), (), "test: no class folder"),
    ],
)
def test_bad_folders(tmp_path: Path, files: tuple[str, ...], folders: tuple[str, ...], message: str) -> None:
    touch(tmp_path, *files)
    for folder in folders:
        (tmp_path / folder).mkdir()
    with pytest.raises(DataError) as caught:
        read_table(tmp_path, delimiter=None, names=None)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/passwd", "a/../../b.png", "", "  ", "a\0.png", 3, None, ".", ".."]
)
def test_paths_stay_below_the_root(tmp_path: Path, path: object) -> None:
    with pytest.raises(DataError, match="row 3"):
        inside(tmp_path, path, "row 3")


def test_paths_that_stay_inside_are_made_relative(tmp_path: Path) -> None:
    assert inside(tmp_path, "a/../b.png", "row 1") == "b.png"
    assert inside(tmp_path, f"{tmp_path}/c/d.png", "row 1") == "c/d.png"
    assert inside(tmp_path, "./e.png", "row 1") == "e.png"


def test_a_sibling_with_the_same_beginning_is_outside(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leads out of"):
        inside(tmp_path / "data", str(tmp_path / "data-2" / "a.png"), "row 1")


def test_missing_files_are_counted_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    table = table_of(tmp_path, "file,label\na.png,ok\nb.png,ok\nc.png,bad\n")
    with pytest.raises(DataError) as caught:
        read_rows(table, tmp_path, ColumnsConfig())
    assert "2 of 3 image files are missing" in caught.value.message
    assert "labels.csv line 3: b.png" in caught.value.message


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"input": "fil"}, "unknown column 'fil' (data.columns.input); it has file, label, part"),
        ({"label": "lable"}, "unknown column 'lable'"),
        ({"group": "panel"}, "unknown column 'panel'"),
        ({"split": "label"}, "labels.csv line 2: split 'ok', expected train, val or test"),
        ({"group": "part"}, "labels.csv line 3: data.columns.group: column 'part' is empty"),
    ],
)
def test_bad_columns(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    touch(tmp_path, "a.png", "b.png")
    table = table_of(tmp_path, "file,label,part\na.png,ok,1\nb.png,bad,\n")
    with pytest.raises(DataError) as caught:
        read_rows(table, tmp_path, ColumnsConfig(**columns))
    assert message in caught.value.message


def test_without_a_known_column_name_the_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(table_of(tmp_path, "picture,kind\na.png,ok\n"), tmp_path, ColumnsConfig())
    assert "it has picture, kind" in caught.value.message
    assert caught.value.hint == "say which one it is: data.columns.input"

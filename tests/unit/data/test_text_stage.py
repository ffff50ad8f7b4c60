"""The data stage of texts: tables in, tokens and splits out, and what the audit has to say."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from edgeft.core.errors import DataError, UsageError
from edgeft.core.stage import Context, StageResult
from edgeft.data.dataset import Dataset
from edgeft.data.text.audit import normal
from edgeft.data.text.config import TextDataConfig
from edgeft.data.text.stage import run
from edgeft.runtime.text import TextContract, TextEncoder
from edgeft.testing.toys import word_tokenizer

TOKENIZER = word_tokenizer(("good", "bad", "film", "好", "坏"))
INPUT = {"max_length": 16, "prefix": "", "pad_id": 0, "has_types": True}
Rows = Sequence[tuple[str, str]]


def reviews(count: int = 40) -> list[tuple[str, str]]:
    return [(f"{word} film {i}", label) for i in range(count) for word, label in (("good", "pos"), ("bad", "neg"))]


@pytest.fixture
def table(tmp_path: Path) -> Callable[[Rows], Path]:
    def write(rows: Rows, name: str = "reviews.csv") -> Path:
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
        return tmp_path / name

    return write


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., StageResult]:
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER)
    made = 0

    def make(source: Path, **config: Any) -> StageResult:  # noqa: ANN401 - config values
        nonlocal made
        made += 1
        out = tmp_path / f"out{made}"
        out.mkdir()
        values = {"source": str(source), "input": INPUT, **config}
        inputs = {"source": source, "tokenizer": tmp_path / "tokenizer.json"}
        return run(Context(out, tmp_path, seed=0, threads=1), inputs, TextDataConfig(**values))

    return make


def findings(folder: Path) -> dict[str, dict[str, Any]]:
    return {item["check"]: item for item in json.loads((folder / "dataset.json").read_text())["audit"]}


def test_texts_become_tokens_labels_and_splits(
    table: Callable[[Rows], Path], stage: Callable[..., StageResult]
) -> None:
    data = Dataset.open(stage(table(reviews())).folder)
    assert data.is_text
    assert data.classes == ("neg", "pos")
    assert sorted(np.unique([row.split for row in data.rows]).tolist()) == ["test", "train", "val"]
    assert isinstance(data.contract, TextContract)
    encoder = TextEncoder(data.contract, TOKENIZER)
    for row in data.rows:
        expected = encoder(row.source)
        found = data.feeds(np.array([row.index]))
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
        assert row.label == (row.class_name == "pos")
    part = data.part(data.indices("val"))[:]
    assert {name: values.shape[0] for name, values in part.items()} == dict.fromkeys(data.contract.inputs, 16)
    with pytest.raises(UsageError, match="texts, and images are needed"):
        _ = data.pixels


def test_any_script_any_label_and_odd_characters_survive(
    table: Callable[[Rows], Path], stage: Callable[..., StageResult]
) -> None:
    odd = [(f'好\u2028电影\n第 {i} 行, "引号"', "正面") for i in range(20)]
    odd += [(f"坏电影 {i}\u0085x", "负面") for i in range(20)]
    data = Dataset.open(stage(table(odd), classes=("负面", "正面")).folder)
    assert data.classes == ("负面", "正面")
    assert sorted(row.text or "" for row in data.rows) == sorted(text for text, _ in odd)


def test_json_lines_and_parquet_give_what_csv_gives(
    tmp_path: Path, table: Callable[[Rows], Path], stage: Callable[..., StageResult]
) -> None:
    rows = reviews(20)
    (tmp_path / "r.jsonl").write_text("".join(json.dumps({"text": t, "label": y}) + "\n\n" for t, y in rows))
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    parquet.write_table(pa.table(columns), tmp_path / "r.parquet")
    found = [
        [(row.text, row.label, row.split) for row in Dataset.open(stage(path).folder).rows]
        for path in (table(rows), tmp_path / "r.jsonl", tmp_path / "r.parquet")
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ('{"text": "a"', "line 1: not JSON"),
        ('{"text": "a", "label": "x"}\n[1]', "line 2: list, expected an object"),
        ('{"text": "a", "label": "x"}\n{"text": "b"}', r"line 2: other keys than line 1 \(label\)"),
        ('{"text": {"a": 1}, "label": "x"}', "'text' is nested"),
        ("\n\n", "holds no rows"),
    ],
)
def test_json_lines_that_are_none_are_named(
    tmp_path: Path, stage: Callable[..., StageResult], lines: str, why: str
) -> None:
    (tmp_path / "r.jsonl").write_text(lines)
    with pytest.raises(DataError, match=why):
        stage(tmp_path / "r.jsonl")


def test_copies_go_before_the_division_and_contradictions_whole(
    table: Callable[[Rows], Path], stage: Callable[..., StageResult]
) -> None:
    rows = [*reviews(), ("GOOD  film 3", "pos"), ("\uff27ood film 4", "pos"), ("bad film 5", "pos")]
    folder = stage(table(rows)).folder
    kept = [row.text for row in Dataset.open(folder).rows]
    assert len(kept) == 79
    assert not {"GOOD  film 3", "\uff27ood film 4", "bad film 5"} & set(kept)
    assert len({normal(text or "") for text in kept}) == 79
    told = findings(folder)
    assert told["copies"]["numbers"] == {"texts": 3}
    assert told["contradictory labels"]["numbers"] == {"texts": 1}
    assert "reviews.csv line 13 (neg) = reviews.csv line 84 (pos)" in told["contradictory labels"]["items"][0]
    assert len(Dataset.open(stage(table(rows), duplicates="report").folder)) == 83
    with pytest.raises(DataError, match="3 of 83 texts stand twice"):
        stage(table(rows), duplicates="refuse")


def test_empty_texts_are_named(table: Callable[[Rows], Path], stage: Callable[..., StageResult]) -> None:
    with pytest.raises(DataError, match=r"1 of 81 texts are empty \(first: reviews\.csv line 82\)"):
        stage(table([*reviews(), ("  ", "pos")]))


def test_long_texts_and_their_share_are_told(table: Callable[[Rows], Path], stage: Callable[..., StageResult]) -> None:
    rows = [(text + " film" * 30 * (i % 4 == 0), label) for i, (text, label) in enumerate(reviews())]
    told = findings(stage(table(rows)).folder)["lengths"]
    assert told["severity"] == "warning"
    assert told["numbers"]["cut_share"] == 0.25
    assert told["numbers"]["max"] == 35
    assert findings(stage(table(reviews())).folder)["lengths"]["severity"] == "info"


def test_scripts_are_counted_and_a_split_of_another_is_a_warning(
    tmp_path: Path, stage: Callable[..., StageResult]
) -> None:
    rows = [("text,label,split")]
    rows += [f"good {i},pos,{split}" for i, split in enumerate(["train"] * 10 + ["val"] * 5)]
    rows += [f"bad {i},neg,{split}" for i, split in enumerate(["train"] * 10 + ["val"] * 5)]
    rows += [f"好好好 {i},{label},test" for i, label in enumerate(["pos", "neg"] * 5)]
    (tmp_path / "s.csv").write_text("\n".join(rows), encoding="utf-8")
    told = findings(stage(tmp_path / "s.csv", columns={"split": "split"}).folder)["scripts"]
    assert told["severity"] == "warning"
    assert told["numbers"]["by_split"]["test"] == {"cjk": 1.0}
    assert told["numbers"]["by_split"]["train"] == {"latin": 1.0}


def test_pairs_slices_and_expressions(tmp_path: Path, stage: Callable[..., StageResult]) -> None:
    lines = ["question,answer,stars,shop"]
    lines += [f"good {i},film {i},{1 + 4 * (i % 2)},{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "q.tsv").write_text("\n".join(lines).replace(",", "\t"))
    columns = {"text": "question", "pair": "answer", "label": "stars >= 4 -> pos else neg", "slices": {"shop": "shop"}}
    data = Dataset.open(stage(tmp_path / "q.tsv", columns=columns).folder)
    assert isinstance(data.contract, TextContract)
    assert data.contract.inputs == ("input_ids", "attention_mask", "token_type_ids")
    row = data.rows[0]
    assert row.source == ("good 0", "film 0")
    assert dict(row.slices) == {"shop": "a"}
    assert data.feeds(np.array([0]))["token_type_ids"].max() == 1


def test_a_missing_column_names_what_there_is(tmp_path: Path, stage: Callable[..., StageResult]) -> None:
    (tmp_path / "x.csv").write_text("a,label\nb,c\n")
    with pytest.raises(DataError, match=r"no column is called text, sentence, .*it has a, label"):
        stage(tmp_path / "x.csv")
    with pytest.raises(DataError, match=r"unknown column 'b' \(data.columns.pair\)"):
        stage(tmp_path / "x.csv", columns={"text": "a", "pair": "b"})


def test_a_trial_says_so_and_the_same_seed_divides_alike(
    table: Callable[[Rows], Path], stage: Callable[..., StageResult]
) -> None:
    folder = stage(table(reviews()), limit=4).folder
    assert len(Dataset.open(folder)) == 24
    assert "at most 4 rows" in findings(folder)["limit"]["message"]
    one, other = ((stage(table(reviews())).folder / "rows.jsonl").read_bytes() for _ in range(2))
    assert one == other


def domains(folder: Path, source: int = 30, target: int = 10) -> Path:
    """Reviews of two domains; target rows are rarer."""
    path = folder / "domains.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "site"])
        for name, count in (("source", source), ("target", target)):
            for i in range(count):
                writer.writerows([(f"good {name} {i}", "pos", name), (f"bad {name} {i}", "neg", name)])
    return path


COLUMNS = {"slices": {"domain": "site"}}


def test_domains_are_mixed_by_their_shares(tmp_path: Path, stage: Callable[..., StageResult]) -> None:
    source = domains(tmp_path)
    data = Dataset.open(stage(source, columns=COLUMNS, mix={"target": 0.7, "source": 0.3}).folder)
    assert data.mix == {"target": 0.7, "source": 0.3}
    assert [row.slices["domain"] for row in data.rows] == [["target", "source"][i] for i in data.domains()]
    assert Dataset.open(stage(source, columns=COLUMNS).folder).mix is None


def test_a_mix_that_does_not_fit_is_refused(tmp_path: Path, stage: Callable[..., StageResult]) -> None:
    source = domains(tmp_path)
    with pytest.raises(ValueError, match=r"add up to 0\.9"):
        stage(source, columns=COLUMNS, mix={"target": 0.6, "source": 0.3})
    with pytest.raises(ValueError, match="which domain a row is of is not said"):
        stage(source, mix={"target": 0.7, "source": 0.3})
    with pytest.raises(DataError, match=r"domain 'source' has no share in data\.mix"):
        stage(source, columns=COLUMNS, mix={"target": 0.7, "other": 0.3})
    with pytest.raises(DataError, match="no training row is of domain 'other'"):
        stage(source, columns=COLUMNS, mix={"target": 0.6, "source": 0.3, "other": 0.1})


def test_texts_without_labels_stand_behind_the_labelled_ones(table: Callable[[Rows], Path], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER)
    more = tmp_path / "more.csv"
    more.write_text("id,text\n1,a new film\n2,good  FILM 3\n3,a new film\n4,\n5,坏 film\n", encoding="utf-8")
    inputs = {"source": table(reviews()), "tokenizer": tmp_path / "tokenizer.json", "unlabelled": more}

    def made(name: str, limit: int | None = None, **given: Any) -> Dataset:  # noqa: ANN401 - inputs
        (tmp_path / name).mkdir()
        values = {"source": "reviews.csv", "input": {**INPUT, "vocabulary": "used"}, "unlabelled_limit": limit}
        config = TextDataConfig.model_validate(values)
        return Dataset.open(run(Context(tmp_path / name, tmp_path, seed=0, threads=1), given, config).folder)

    plain = made("plain", **{name: path for name, path in inputs.items() if name != "unlabelled"})
    data = made("more", **inputs)
    rows = [data.rows[index] for index in data.indices("unlabelled")]
    assert [(row.text, row.label, row.class_name) for row in rows] == [("a new film", -1, ""), ("坏 film", -1, "")]
    assert data.rows[: len(plain)] == plain.rows
    assert findings(data.folder)["unlabelled"]["numbers"] == {"taken": 2, "of": 5}
    assert findings(data.folder)["unlabelled"]["message"].endswith("the others are empty, or equal to others")
    few = made("few", limit=1, **inputs)
    assert [few.rows[index].text for index in few.indices("unlabelled")] == ["a new film"]
    assert findings(few.folder)["unlabelled"]["numbers"] == {"taken": 1, "of": 5}
    encoder = data.encoder()
    for row in rows:
        found, expected = data.feeds(np.array([row.index])), encoder(row.source)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    own, before = data.vocabulary, plain.vocabulary
    assert own is not None
    assert before is not None
    assert set(before.tolist()) <= set(own.tolist())  # what a student learns from keeps its tokens, too
    more.write_text('text\n"a new film, and long"\n坏 film\n', encoding="utf-8")  # one column is a table, too
    alone = made("alone", **inputs)
    assert [alone.rows[index].text for index in alone.indices("unlabelled")] == ["a new film, and long", "坏 film"]
    (tmp_path / "bad.csv").write_text("words\nx\n")
    with pytest.raises(DataError, match="text"):
        made("bad", **{**inputs, "unlabelled": tmp_path / "bad.csv"})

"""The Chinese sample as a newcomer runs it, small: an encoder in 4 bits made whole, and its vocabulary cut down."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

SAMPLE = Path(__file__).parents[2] / "samples" / "reviews_zh"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sample") / "reviews_zh"
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns(".edgeft", "dist", "*.csv", "encoder"))
    subprocess.run([sys.executable, folder / "prepare.py"], check=True, capture_output=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_every_review_stands_once_under_one_label(recipe: Path) -> None:
    with (recipe / "reviews.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["text"] for row in rows}) == len(rows) == 17363
    assert sum(row["label"] == "正面" for row in rows) == 8332


def test_the_tokenizer_normalizes_as_the_encoder_was_pretrained(recipe: Path) -> None:
    tokenizer = Tokenizer.from_file(str(recipe / "encoder" / "tokenizer.json"))
    tokens = ["<s>", "▁que", "ry", ":", "▁", "质量", "很好", "</s>"]  # e5's own: it has no "▁query"
    assert tokenizer.encode("query: 质量很好").tokens == tokens
    plain, marked = (tokenizer.encode(text).ids for text in ("好 的", "\u200b好  的\x01"))
    assert plain == marked
    assert (
        tokenizer.normalizer.normalize_str("\uff21\uff22\u2460\uff5e") == "AB1\uff5e"
    )  # NFKC, but not of the wide tilde


def test_a_build_keeps_the_tokens_that_it_needs(recipe: Path, edgeft: Callable[..., Any]) -> None:
    built = edgeft("build", recipe, "--smoke", "--no-latency")
    assert built.code in {0, 5}, built.stderr  # a smoke model may lose its accuracy; it must never crash
    parity = {gate["name"]: gate["verdict"] for gate in built.json["gates"] if gate["name"].startswith("parity")}
    assert set(parity.values()) == {"PASS"}
    bundle = Path(built.json["bundle"])
    kept = Tokenizer.from_file(str(bundle / "tokenizer.json")).get_vocab_size()
    assert kept < 20_000
    manifest = json.loads((bundle / "manifest.json").read_text())
    whole = (recipe / "encoder" / "model.safetensors").stat().st_size
    assert (bundle / "model.onnx").stat().st_size < whole * (0.1 if manifest["precision"] == "int8" else 0.3)
    notes = " ".join(note for stage in built.json["stages"] for note in stage["notes"])
    assert f"{kept:,} of 250,037 embeddings are kept" in notes
    decided = edgeft("predict", bundle, "质量很好", "太差了")
    assert {row["label"] for row in decided.json["predictions"]} <= {"正面", "负面"}

"""Texts are changed word by word, as often as asked for, and alike for the same seed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from edgeft.core.errors import DataError
from edgeft.data.text.augment import TextAugmentation, table_synonyms, wordnet_synonyms
from edgeft.data.text.augment_config import TextAugment

WORDNET = Path("/usr/share/wordnet")
TEXT = "  A good film,  and not at all dull: I liked it. "
LONG = " ".join(f"w{i}" for i in range(400))


def test_nothing_is_changed_by_default() -> None:
    assert TextAugmentation(TextAugment())(TEXT, 1) == TEXT
    assert not TextAugment().changes


def test_words_are_left_out_as_often_as_asked_for() -> None:
    found = TextAugmentation(TextAugment(delete=0.2))
    left = [len(str(found(LONG, seed)).split()) for seed in range(50)]
    assert np.mean(left) == pytest.approx(320, abs=5)
    assert "  " not in str(found(LONG, 0))
    assert all(found("one", seed) == "one" for seed in range(20))
    assert all(str(found("one two", seed)).split() for seed in range(50))


def test_words_change_places_and_stay() -> None:
    found = str(TextAugmentation(TextAugment(swap=0.2))(LONG, 3))
    assert Counter(found.split()) == Counter(LONG.split())
    moved = sum(a != b for a, b in zip(found.split(), LONG.split(), strict=True))
    assert 60 < moved < 200
    assert str(TextAugmentation(TextAugment(swap=0.5))(TEXT, 1)).startswith("  ")


def test_chinese_is_changed_by_character() -> None:
    text = "这本书非常好看我很喜欢值得推荐给大家阅读"
    found = str(TextAugmentation(TextAugment(swap=0.5))(text, 1))
    assert found != text
    assert Counter(found) == Counter(text)
    assert len(str(TextAugmentation(TextAugment(delete=0.5))(text, 1))) < len(text)


def test_synonyms_keep_capitals_and_punctuation(tmp_path: Path) -> None:
    table = tmp_path / "words.csv"
    table.write_text("good, fine\nfilm,movie,picture\n\n")
    known = table_synonyms(table)
    assert list(known("film")) == ["movie", "picture"]
    augment = TextAugmentation(TextAugment(synonyms=0.5, table="words.csv"), known)
    seen = {str(augment("Good film!", seed)) for seed in range(60)}
    assert seen == {f"{a} {b}!" for a in ("Good", "Fine") for b in ("film", "movie", "picture")}


def test_pairs_are_changed_both() -> None:
    found = TextAugmentation(TextAugment(delete=0.3))((LONG, LONG), 5)
    assert isinstance(found, tuple)
    assert len(found[0].split()) < 400 > len(found[1].split())
    assert found[0] != found[1]


def test_the_seed_alone_decides() -> None:
    augment = TextAugmentation(TextAugment(delete=0.2, swap=0.2))
    assert augment(LONG, 7) == augment(LONG, 7) != augment(LONG, 8)


def small_wordnet(folder: Path) -> Path:
    """Two senses of one adjective, in WordNet's own format."""
    senses = ["00000000 00 a 02 glad(p) 0 happy 0 000 | first sense", "00000000 00 a 01 felicitous 0 000 | second"]
    data = "  1 licence\n"
    offsets = []
    for sense in senses:
        offsets.append(f"{len(data):08d}")
        data += offsets[-1] + sense[8:] + "\n"
    (folder / "data.adj").write_text(data)
    (folder / "index.adj").write_text(f"  1 licence\nglad a 2 1 & 2 1 {' '.join(offsets)}\n")
    for part in ("noun", "verb", "adv"):
        (folder / f"data.{part}").write_text("  1 licence\n")
        (folder / f"index.{part}").write_text("  1 licence\n")
    return folder


def test_wordnet_gives_the_first_sense(tmp_path: Path) -> None:
    known = wordnet_synonyms(small_wordnet(tmp_path))
    assert list(known("glad")) == ["happy"]
    assert list(known("strange")) == []


@pytest.mark.skipif(not (WORDNET / "index.noun").is_file(), reason="apt-get install wordnet-base")
def test_debians_wordnet() -> None:
    known = wordnet_synonyms(WORDNET)
    assert "automobile" in known("car")
    assert {"movie", "picture", "moving picture"} <= set(known("film"))
    assert not any("(" in word for word in known("glad"))


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="synonyms need one source"):
        TextAugment(synonyms=0.1)
    with pytest.raises(ValidationError, match="synonyms need one source"):
        TextAugment(synonyms=0.1, table="a", wordnet="b")
    with pytest.raises(ValidationError, match=r"less than or equal to 0\.5"):
        TextAugment(delete=0.6)
    table = tmp_path / "words.csv"
    table.write_text("good,fine\nalone\n")
    with pytest.raises(DataError, match="line 2: 'alone' has no other word"):
        table_synonyms(table)
    table.write_text("\n")
    with pytest.raises(DataError, match="holds no synonyms"):
        table_synonyms(table)
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a table of synonyms"):
        table_synonyms(table)
    with pytest.raises(DataError, match="not a WordNet database"):
        wordnet_synonyms(tmp_path)
    folder = small_wordnet(tmp_path)
    (folder / "index.adj").write_text("glad a 2 1 & 2 1 00000003 00000009\n")
    with pytest.raises(DataError, match=r"no sense at byte 3|invalid literal"):
        wordnet_synonyms(folder)

"""Augmenting texts word by word: synonyms, words left out, words that change places (Wei & Zou 2019).

A word is a run of characters without blanks, or one Chinese or Japanese character; the blanks around it stay. Each text
has a random generator of its own, so it is augmented alike whatever stands beside it and in whatever order they come.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeft.core.errors import DataError
from edgeft.data.text.augment_config import TextAugment
from edgeft.runtime.text import Text

Synonyms = Callable[[str], Sequence[str]]
"""A word in lower case -> other words for it."""

_ONE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_ONE}]|[^\s{_ONE}]+")
_CORE = re.compile(r"\w+(?:['-]\w+)*")
_PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
_COUNTS = 4
"""Fields of an index line before the pointer symbols: lemma, part of speech, senses, pointers."""


class TextAugmentation:
    """What `config` asks for.

    Args:
        config: shares of words.
        synonyms: needed where `config.synonyms` is above 0.
    """

    def __init__(self, config: TextAugment, synonyms: Synonyms | None = None) -> None:
        if config.synonyms and synonyms is None:
            raise ValueError("synonyms are asked for, and none are given")
        self._config, self._synonyms = config, synonyms

    def __call__(self, text: Text, seed: int) -> Text:
        """Return the text, or both of a pair, augmented by the numbers of `seed`; at least one word stays."""
        rng = np.random.default_rng(seed)
        if isinstance(text, str):
            return self._one(text, rng)
        first, second = text
        return self._one(first, rng), self._one(second, rng)

    def _one(self, text: str, rng: np.random.Generator) -> str:
        words = [match.group() for match in _WORD.finditer(text)]
        if not words:
            return text
        gaps = _WORD.split(text)
        config = self._config
        if self._synonyms is not None and config.synonyms:
            drawn = rng.random(len(words)) < config.synonyms
            words = [self._other(word, rng) if chosen else word for word, chosen in zip(words, drawn, strict=True)]
        if config.delete:
            kept = rng.random(len(words)) >= config.delete
            if not kept.any():
                kept[rng.integers(len(words))] = True
            words = [word for word, stays in zip(words, kept, strict=True) if stays]
            gaps = [gaps[0], *(gap for gap, stays in zip(gaps[1:], kept, strict=True) if stays)]
        if config.swap:
            for at in np.flatnonzero(rng.random(len(words) - 1) < config.swap):
                words[at], words[at + 1] = words[at + 1], words[at]
        return gaps[0] + "".join(word + gap for word, gap in zip(words, gaps[1:], strict=True))

    def _other(self, word: str, rng: np.random.Generator) -> str:
        core = _CORE.search(word)
        found = self._synonyms(core.group().lower()) if core and self._synonyms else ()
        if not core or not found:
            return word
        other = found[int(rng.integers(len(found)))]
        other = other.capitalize() if core.group()[0].isupper() else other
        return word[: core.start()] + other + word[core.end() :]


def table_synonyms(path: Path) -> Synonyms:
    """Return the synonyms of a user's table: each line a word, then other words for it, by comma or tab.

    Raises:
        DataError: it cannot be read, or a line has no second word; names the line.
    """
    known: dict[str, list[str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            for number, row in enumerate(rows, 1):
                words = [cell.strip() for cell in row if cell.strip()]
                if not words:
                    continue
                if len(words) == 1:
                    raise DataError(
                        f"{path}, line {number}: {words[0]!r} has no other word",
                        hint="write lines such as: good,fine,decent",
                    )
                known.setdefault(words[0].lower(), []).extend(words[1:])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: not a table of synonyms: {error}", hint="write UTF-8 lines: good,fine,decent"
        ) from error
    if not known:
        raise DataError(f"{path}: holds no synonyms")
    return lambda word: known.get(word, ())


def wordnet_synonyms(folder: Path) -> Synonyms:
    """Return the synonyms of a WordNet database: those of a word's most frequent sense as each part of speech.

    Args:
        folder: holds index.noun, data.noun and so on; Debian's wordnet-base puts them into /usr/share/wordnet.

    Raises:
        DataError: a file is missing or damaged.
    """
    known: dict[str, list[str]] = {}
    for part in _PARTS_OF_SPEECH:
        try:
            data = (folder / f"data.{part}").read_bytes()
            for lemma, offset in _senses(folder / f"index.{part}"):
                known.setdefault(lemma, []).extend(word for word in _words(data, offset) if word.lower() != lemma)
        except (OSError, ValueError, IndexError) as error:
            raise DataError(
                f"{folder}: not a WordNet database: {error}",
                hint="apt-get install wordnet-base, then wordnet: /usr/share/wordnet",
            ) from error
    unique: Mapping[str, tuple[str, ...]] = {word: tuple(dict.fromkeys(others)) for word, others in known.items()}
    return lambda word: unique.get(word, ())


def _senses(index: Path) -> Iterator[tuple[str, int]]:
    """Yield each lemma of an index file with the offset of its first sense in the data file."""
    for line in index.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):  # the licence
            fields = line.split()
            first = _COUNTS + int(fields[3]) + 2
            yield fields[0].replace("_", " "), int(fields[first])


def _words(data: bytes, offset: int) -> list[str]:
    """Return the words of the sense at `offset`, without the marker of adjectives' places."""
    fields = data[offset : data.index(b"\n", offset)].decode().split()
    if int(fields[0]) != offset:
        raise ValueError(f"no sense at byte {offset}")
    return [re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]

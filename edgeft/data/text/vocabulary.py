"""Which tokens of a large vocabulary a task needs, and a tokenizer that knows these alone.

Of multilingual-e5-small's 118 M parameters 96 M are embeddings of 250,037 tokens, most in scripts that a task never
sees. Kept are

1. the special tokens,
2. every token that a training text is made of,
3. every single character in a script of the training texts, so that what is new can still be spelled,
4. as a margin, the likeliest others that are made of characters of 1 and 2.

Training texts have the same tokens as before: a unigram model's best segmentation is still there and is still the best,
and so is the longest match of a word-piece model. That is checked on every one of them. BPE builds tokens from others
and is refused.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DataError, UsageError
from edgeft.data.audit.finding import Finding
from edgeft.data.text.audit import script
from edgeft.runtime.text import Text, TextContract, TextEncoder, Tokens

_MARKS: Final = ("▁", "##")
"""What stands in front of a token that begins or goes on with a word."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A tokenizer with a part of its vocabulary.

    Args:
        encoder: with the new tokenizer, under its contract.
        tokenizer: its file.
        kept: int64 [K], ascending: the ids that its tokens had.
        finding: how many, and what it means for texts that are not trained on.
    """

    encoder: TextEncoder
    tokenizer: bytes
    kept: npt.NDArray[np.int64]
    finding: Finding


def trim(
    tokenizer: bytes, contract: TextContract, train: Sequence[Text], others: Sequence[Text], margin: float
) -> Trimmed:
    """Return the tokenizer that knows what `train` needs and a margin.

    Args:
        tokenizer: the whole one's file.
        contract: of the whole one.
        train: texts that it must encode as before.
        others: texts on which it is told how often it encodes them otherwise.
        margin: tokens to keep beside these, as a share of the tokens in `train`.

    Raises:
        UsageError: the tokenizer is of a kind whose tokens depend on each other.
        DataError: a text of `train` would have other tokens.
    """
    values: dict[str, Any] = json.loads(tokenizer)
    whole, names = TextEncoder(contract, tokenizer), _names(values)
    before, unknown = whole.tokens(train), names.index(_unknown(values, names))
    special = {int(each["id"]) for each in values.get("added_tokens", ())} | {contract.pad_id, unknown}
    used = {index for each in before for index in each.ids}
    kept = special | used | _single(names, train)
    kept |= set(_likeliest(names, kept, {letter for index in used for letter in names[index]}, margin * len(used)))
    ids = np.array(sorted(kept), np.int64)
    small = json.dumps(_renumbered(values, ids), ensure_ascii=False).encode()
    place = {int(old): new for new, old in enumerate(ids)}
    narrow = replace(contract, pad_id=place[contract.pad_id], tokenizer=sha256_bytes(small))
    encoder = TextEncoder(narrow, small)
    after = encoder.tokens(train)
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        if list(old.ids) != ids[list(new.ids)].tolist():
            raise DataError(
                f"model.text.vocabulary: training text {index} would have other tokens: {train[index]!r}",
                hint="model.text.vocabulary: all",
            )
    told = _finding(whole.tokens(others), encoder.tokens(others), ids, (len(names), len(used), unknown))
    return Trimmed(encoder, small, ids, told)


def _names(values: Mapping[str, Any]) -> list[str]:
    """Return the tokens of a tokenizer in the order of their ids, added ones included."""
    model = values["model"]
    vocabulary = model.get("vocab")
    if model.get("type") == "BPE" or not isinstance(vocabulary, list | dict):
        raise UsageError(
            f"model.text.vocabulary: used needs a unigram or word-piece tokenizer, this one is {model.get('type')}",
            hint="model.text.vocabulary: all",
        )
    found = [name for name, _ in vocabulary] if isinstance(vocabulary, list) else [""] * len(vocabulary)
    if isinstance(vocabulary, dict):
        for name, index in vocabulary.items():
            found[index] = name
    for added in sorted(values.get("added_tokens", ()), key=lambda each: int(each["id"])):
        found += [""] * (int(added["id"]) + 1 - len(found))
        found[added["id"]] = added["content"]
    return found


def _unknown(values: Mapping[str, Any], names: Sequence[str]) -> str:
    model = values["model"]
    return str(model["unk_token"]) if "unk_token" in model else names[model["unk_id"]]


def _single(names: Sequence[str], texts: Sequence[Text]) -> set[int]:
    """Return the tokens that are one character in a script that `texts` are written in."""
    letters = {letter for text in texts for part in ((text,) if isinstance(text, str) else text) for letter in part}
    scripts = {script(letter) for letter in letters}
    bare = (_bare(name) for name in names)
    return {index for index, name in enumerate(bare) if len(name) == 1 and script(name) in scripts}


def _likeliest(names: Sequence[str], kept: set[int], letters: set[str], count: float) -> list[int]:
    """Return the first `count` other tokens made of `letters`: vocabularies begin with what is frequent."""
    fitting = (index for index, name in enumerate(names) if name and index not in kept and letters.issuperset(name))
    return [index for index, _ in zip(fitting, range(int(count)), strict=False)]


def _bare(name: str) -> str:
    for mark in _MARKS:
        if name.startswith(mark) and name != mark:
            return name[len(mark) :]
    return name


def _renumbered(values: Mapping[str, Any], kept: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the tokenizer `values` with the tokens `kept` [K] alone, numbered 0..K-1."""
    place = {int(old): new for new, old in enumerate(kept)}
    model = dict(values["model"])
    if isinstance(model["vocab"], list):
        model |= {"vocab": [model["vocab"][old] for old in kept if old < len(model["vocab"])]}
        model |= {"unk_id": place[model["unk_id"]]}
    else:
        model |= {"vocab": {name: place[old] for name, old in model["vocab"].items() if old in place}}
    added = [{**each, "id": place[each["id"]]} for each in values.get("added_tokens", ())]
    found = {**values, "model": model, "added_tokens": added, "padding": None, "truncation": None}
    if values.get("post_processor"):
        found["post_processor"] = _renumbered_processor(values["post_processor"], place)
    return found


def _renumbered_processor(processor: Mapping[str, Any], place: Mapping[int, int]) -> dict[str, Any]:
    """Return a post-processor with the new ids of its special tokens."""
    found = dict(processor)
    for key in ("sep", "cls"):  # BERT's and RoBERTa's
        if key in found:
            name, old = found[key]
            found[key] = [name, place[old]]
    if isinstance(found.get("special_tokens"), dict):
        found["special_tokens"] = {
            name: {**each, "ids": [place[old] for old in each["ids"]]} for name, each in found["special_tokens"].items()
        }
    if "processors" in found:
        found["processors"] = [_renumbered_processor(each, place) for each in found["processors"]]
    return found


def _finding(
    before: Sequence[Tokens], after: Sequence[Tokens], kept: npt.NDArray[np.int64], counts: tuple[int, int, int]
) -> Finding:
    whole, used, unknown = counts
    back = [kept[list(each.ids)] for each in after]
    same = sum(list(old.ids) == new.tolist() for old, new in zip(before, back, strict=True))
    total = max(sum(len(each.ids) for each in before), 1)
    lost = [sum(list(each.ids).count(unknown) for each in before), sum(int((each == unknown).sum()) for each in back)]
    message = (
        f"{len(kept):,} of {whole:,} tokens are kept, {used:,} of them from training texts, which are encoded as "
        f"before; so are {same:,} of {len(before):,} other texts, in which {lost[0]} tokens were unknown and "
        f"{lost[1]} are now"
    )
    numbers = {
        "kept": len(kept),
        "of": whole,
        "used": used,
        "others": len(before),
        "others_same": same,
        "unknown_share_before": lost[0] / total,
        "unknown_share": lost[1] / total,
    }
    return Finding("vocabulary", "info", message, numbers=numbers)

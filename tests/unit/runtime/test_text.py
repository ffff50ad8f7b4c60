"""From text to tokens: as transformers does it, under edgeft's own limits."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from edgeft.core.digest import sha256_bytes
from edgeft.core.errors import DataError, IntegrityError, UsageError
from edgeft.runtime.encode import contract_from_json, one_row, open_encoder
from edgeft.runtime.text import MASK, Text, TextContract, TextEncoder, Tokens, TokenTable, padded
from edgeft.testing.toys import word_tokenizer

WORDS = ("red", "green", "sky", "a", "query:")
TOKENIZER = word_tokenizer(WORDS)


def contract(most: int = 8, prefix: str = "", *, pair: bool = False, types: bool = False) -> TextContract:
    return TextContract(most, prefix, 0, pair, types, sha256_bytes(TOKENIZER))


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    path = tmp_path_factory.mktemp("peer") / "tokenizer.json"
    path.write_bytes(TOKENIZER)
    return PreTrainedTokenizerFast(tokenizer_file=str(path), pad_token="[PAD]")  # noqa: S106 - a token, no secret


TEXTS = ["red", "a green sky", "sky " * 20, "unknown words red", "红 sky"]


@pytest.mark.parametrize("most", [8, 12])
def test_tokens_are_those_of_transformers(peer: PreTrainedTokenizerFast, most: int) -> None:
    found = padded(TextEncoder(contract(most), TOKENIZER).tokens(TEXTS), contract(most))
    expected = peer(TEXTS, padding=True, truncation=True, max_length=most, return_tensors="np")
    np.testing.assert_array_equal(found["input_ids"], expected["input_ids"])
    np.testing.assert_array_equal(found[MASK], expected["attention_mask"])
    assert found["input_ids"].dtype == np.int64


def test_pairs_share_the_length_and_are_told_apart(peer: PreTrainedTokenizerFast) -> None:
    pairs: list[Text] = [("red sky " * 5, "green"), ("a", "sky a red")]
    rule = contract(9, pair=True, types=True)
    found = padded(TextEncoder(rule, TOKENIZER).tokens(pairs), rule)
    sides: list[list[str]] = [list(side) for side in zip(*pairs, strict=True)]
    options = {"padding": True, "truncation": True, "max_length": 9, "return_tensors": "np"}
    expected = peer(*sides, return_token_type_ids=True, **options)
    for name in rule.inputs:
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_prefix_is_put_before_the_first_text() -> None:
    plain, prefixed = (TextEncoder(contract(prefix=prefix), TOKENIZER) for prefix in ("", "query: "))
    assert prefixed.tokens(["red"])[0].ids == plain.tokens(["query: red"])[0].ids


def test_lengths_are_before_the_cut() -> None:
    encoder = TextEncoder(contract(8), TOKENIZER)
    assert encoder.lengths(["red", "sky " * 20]) == [3, 22]
    assert [len(one.ids) for one in encoder.tokens(["red", "sky " * 20])] == [3, 8]


@pytest.mark.parametrize(
    ("text", "pair", "why"),
    [
        ("", False, "text 0 is empty"),
        (" \n", False, "text 0 is empty"),
        (("red", " "), True, "text 0 is empty"),
        ("red", True, "1 texts, the model takes 2"),
        (("red", "sky"), False, "2 texts, the model takes 1"),
    ],
)
def test_what_is_no_text_for_the_model_is_refused(text: Text, pair: bool, why: str) -> None:  # noqa: FBT001 - a case
    with pytest.raises(DataError, match=why):
        TextEncoder(contract(pair=pair), TOKENIZER).tokens([text])


def test_another_tokenizer_is_refused() -> None:
    other = word_tokenizer(("other", *WORDS))
    with pytest.raises(IntegrityError, match="the model was trained with"):
        TextEncoder(contract(), other)
    with pytest.raises(IntegrityError, match=r"not a tokenizer\.json"):
        TextEncoder(TextContract(8, "", 0, False, False, sha256_bytes(b"{}")), b"{}")
    with pytest.raises(IntegrityError, match="there is no tokenizer"):
        open_encoder(contract(), None)


def test_a_contract_survives_json_and_refuses_what_is_none() -> None:
    rule = contract(prefix="query: ", pair=True, types=True)
    values = json.loads(json.dumps(rule.to_json()))
    assert contract_from_json(values) == rule
    assert rule.inputs == ("input_ids", "attention_mask", "token_type_ids")
    for changed in ({"max_length": "x"}, {"surprise": 1}, {"max_length": None}):
        with pytest.raises(DataError):
            contract_from_json({**values, **changed})
    with pytest.raises(UsageError, match="at least 8"):
        contract(7)


def test_a_table_gives_rows_back_as_they_were(tmp_path: Path) -> None:
    tokens = [Tokens([2, 4, 3], [0, 0, 0]), Tokens([2, 5, 6, 7, 3], [0, 0, 1, 1, 1]), Tokens([2, 3], [0, 0])]
    rule = contract(pair=True, types=True)
    (tmp_path / "tokens.npz").write_bytes(TokenTable.of(tokens, rule).to_bytes())
    table = TokenTable.open(tmp_path / "tokens.npz", rule)
    assert len(table) == 3
    assert table.lengths.tolist() == [3, 5, 2]
    for rows in ([1, 0], [2], [0, 1, 2]):
        expected = padded([tokens[row] for row in rows], rule)
        found = table.feeds(rows)
        for name in rule.inputs:
            np.testing.assert_array_equal(found[name], expected[name])
    single = one_row(table.feeds([0, 1, 2]), 2)
    assert {name: values.tolist() for name, values in single.items()} == {
        "input_ids": [[2, 3]], "attention_mask": [[1, 1]], "token_type_ids": [[0, 0]],
    }  # fmt: skip
    (tmp_path / "tokens.npz").write_bytes(b"PK")
    with pytest.raises(IntegrityError, match="no tokens can be read"):
        TokenTable.open(tmp_path / "tokens.npz", rule)


def test_messages_name_the_text() -> None:
    encode = open_encoder(contract(), TOKENIZER)
    with pytest.raises(DataError, match=r"reviews\.csv line 3 is empty"):
        encode(" ", "reviews.csv line 3")
    with pytest.raises(DataError, match="line 4: a int, expected a text"):
        encode(7, "line 4")

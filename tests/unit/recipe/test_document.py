"""YAML: what a recipe may not use, and what plain words mean."""

import pytest

from edgeft.core.errors import UsageError
from edgeft.recipe.document import MAX_BYTES, parse
from edgeft.recipe.overrides import apply


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {a: 1}\nmodel: b\ndata: 2", "line 3: 'data' stands twice, first in r.yaml line 1"),
        ("- data", "found a list"),
        ("words only", "found one value"),
        ("", "found nothing"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", "line 2: tags such as .*os.system"),
        ("a: !custom 1", "line 1: tags such as !custom"),
        ("a: &x 1\nb: *x", "line 1: anchors"),
        ("a: [1, 2", "not YAML"),
        ("a:\n\t- b", "line 2: not YAML"),
        ("a: 1\n---\nb: 2", "line 2: a second document"),
        ("[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("a: \x07", "not YAML"),
        ("? [a, b]\n: 1", "line 1: a key must be a word"),
        ("a: " + "x" * MAX_BYTES, "at most 262144"),
    ],
)
def test_what_is_refused_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text, "r.yaml")


def test_a_tab_gets_the_hint_to_use_spaces() -> None:
    with pytest.raises(UsageError) as caught:
        parse("a:\n\t- b", "r.yaml")
    assert caught.value.hint == "indent with spaces, not tabs"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("12:30", "12:30"), ("2024-01-01", "2024-01-01"), ("1e-3", 0.001), (".5", 0.5),
        ("-2", -2), ("007", 7), ("0x1f", 31), ("0o17", 15), ("true", True), ("'1'", "1"), ("~", None), ("null", None),
        ("", None), ("1_000", "1_000"), ("1.5.2", "1.5.2"), ("9" * 400, "9" * 400), (".nan", ".nan"),
    ],
)  # fmt: skip
def test_plain_words_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    found = parse(f"a: {text}", "r.yaml").values["a"]
    assert (found, type(found)) == (value, type(value))


def test_keys_are_text_and_know_their_line() -> None:
    document = parse("1: a\nb:\n  c:\n    - d\n    - e: 2\n", "r.yaml")
    assert document.values == {"1": "a", "b": {"c": ["d", {"e": 2}]}}
    assert document.origin(("b", "c", 1, "e")) == "r.yaml line 5"
    assert document.origin(("b", "missing")) == "r.yaml line 2"


def test_overrides_replace_add_and_index() -> None:
    document = parse("train: {lr: 1}\nlist: [{a: 1}]\n", "r.yaml")
    found = apply(document, ["train.lr=1e-4", "new.deep.key=[1, x]", "list.0.a=null"])
    assert found.values == {"train": {"lr": 0.0001}, "list": [{"a": None}], "new": {"deep": {"key": [1, "x"]}}}
    assert found.origin(("train", "lr")) == "--set train.lr=1e-4"
    assert document.values["train"] == {"lr": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.lr", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("train.lr.x=3", "train.lr holds a int"),
        ("a=[1", "not YAML"),
        ("list.7.a=1", "list holds a list"),
    ],
)
def test_an_override_that_cannot_be_applied_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"--set {text.split('=', maxsplit=1)[0]}.*{message}"):
        apply(parse("train: {lr: 1}\nlist: [1]\n", "r.yaml"), [text])

import pytest

from edgeft.report.markup import Markup, element, escape, join, writable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<b>", "&lt;b&gt;"),
        ('a "quoted" & it\'s', "a &quot;quoted&quot; &amp; it&#x27;s"),
        ("缺陷", "缺陷"),
        ("nul\x00", "nul\ufffd"),
        ("surrogate\udcff", "surrogate\ufffd"),
        ("line\nfeed\tand tab", "line\nfeed\tand tab"),
    ],
)
def test_text_is_escaped(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_text_children_are_escaped_and_markup_is_not() -> None:
    assert element("p", "<i>", Markup("<i></i>")) == "<p>&lt;i&gt;<i></i></p>"


def test_attributes_are_escaped_and_none_is_left_out() -> None:
    made = element("a", "x", href='" onclick="alert(1)', class_="c", title=None, aria_hidden="true")
    assert made == '<a href="&quot; onclick=&quot;alert(1)" class="c" aria-hidden="true">x</a>'


def test_numbers_in_attributes_have_no_padding() -> None:
    assert element("rect", x=1.50, y=2, width=0.333333) == '<rect x="1.5" y="2" width="0.33"></rect>'


def test_void_tags_close_themselves() -> None:
    assert element("meta", name="n", content="c") == '<meta name="n" content="c">'


def test_nested_content_is_flattened() -> None:
    assert join("a", None, ["b", ["<", Markup("<hr>")]]) == "ab&lt;<hr>"


def test_markup_of_escaped_text_is_not_escaped_again() -> None:
    assert join(escape("<")) == "&lt;"


def test_every_text_becomes_utf_8() -> None:
    assert writable("\ud800ok\uffff").encode() == "\ufffdok\ufffd".encode()

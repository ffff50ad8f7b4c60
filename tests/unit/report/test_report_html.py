import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edgeft.report.card import model_card
from edgeft.report.html import render

Folder = Callable[[dict[str, Any]], Path]
SECTIONS = [
    *("gates", "artifact", "accuracy", "candidates", "latency", "parity", "flips", "data"),
    *("training", "stages", "lint", "recipe", "machine"),
]
VOID = {"meta", "img", "br", "col"}


class Page(HTMLParser):
    """What the tests ask of a page: its tags with attributes, its texts by tag, and whether tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]

    def text(self, *, without: tuple[str, ...] = ("style",)) -> str:
        return " ".join(data for tag, data in self.texts if tag not in without)


@pytest.fixture
def page(complete: dict[str, Any], verify_folder: Folder) -> Page:
    return Page(render(complete, verify_folder(complete)))


def _normal(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_unsafe_pairs_are_told_only_where_they_were_counted(complete: dict[str, Any], verify_folder: Folder) -> None:
    folder, shipped = verify_folder(complete), complete["candidates"]["candidates"][1]
    assert "unsafe weight pairs" in Page(render(complete, folder)).text()
    shipped["unsafe_pairs"] = None  # fp16 multiplies no integers
    assert "unsafe weight pairs" not in Page(render(complete, folder)).text()


def test_tags_nest(page: Page) -> None:
    assert page.open == []


def test_the_verdict_comes_first_then_the_sections_in_order(page: Page) -> None:
    order = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert order == SECTIONS
    tags = [tag for tag, _ in page.tags]
    assert tags.index("header") < tags.index("section")
    assert "PASS" in page.text()[:400]


def test_nothing_is_fetched_and_nothing_runs(page: Page) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert all(source.startswith("data:image/png;base64,") for source in page.attributes("src"))
    assert all(target.startswith("#") for target in page.attributes("href"))


def test_the_style_fetches_nothing(page: Page) -> None:
    style = next(data for tag, data in page.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_this_style_and_data_pictures_only(page: Page) -> None:
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    style = next(data for tag, data in page.texts if tag == "style")
    pinned = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    expected = [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{pinned}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert policy.split("; ") == expected


def test_links_lead_somewhere_and_ids_are_unique(page: Page) -> None:
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert {target.removeprefix("#") for target in page.attributes("href")} <= set(ids)
    assert set(page.attributes("aria-labelledby")) <= set(ids)


def test_tables_have_captions_and_drawings_have_names(page: Page) -> None:
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption") > 5
    after_svg = [tags[index + 1 : index + 3] for index, tag in enumerate(tags) if tag == "svg"]
    assert len(after_svg) > 5
    assert all(pair == ["title", "desc"] for pair in after_svg)
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")


def test_every_gate_is_told_with_value_interval_limit_and_n(page: Page) -> None:
    text = _normal(page.text())
    for expected in ("0.38 pp", "limit 2.00 pp · n = 525", "limit 1.000 · n = 15", "90 % CI", "All 4 gates pass."):
        assert expected in text


def test_changed_decisions_have_their_pictures(page: Page, complete: dict[str, Any]) -> None:
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == len(complete["verify"]["flips"]) > 0
    assert "harmful" in page.text()
    assert "not kept" not in page.text()


def test_the_record_s_facts_are_there(page: Page, complete: dict[str, Any]) -> None:
    text = _normal(page.text())
    for expected in (
        "3.67 MB",
        complete["content_digest"][:16],
        "2 623 images",
        "truncated PNG: ends in row 212 of 300",
        "2 near duplicates moved from test to train",
        "the last Gemm's output stays float",
        "AMD EPYC 7B13",
        "onnxruntime",
        "0 of 8 stages reused",
        "max_drop_pp: 2.0",
    ):
        assert expected in text


def test_every_part_that_is_missing_says_so(minimal: dict[str, Any], tmp_path: Path) -> None:
    page = Page(render(minimal, tmp_path))
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == SECTIONS
    assert page.attributes("class").count("absent") >= len(SECTIONS) - 1
    text = page.text()
    for expected in ("FAIL", "No gate was judged", "no artifact", "Latency was not measured", "No hop was compared"):
        assert expected in text


def test_an_empty_record_is_a_page_without_a_verdict(tmp_path: Path) -> None:
    assert "NOT JUDGED" in Page(render({}, tmp_path)).text()


def test_without_latency_the_page_says_that(complete: dict[str, Any], verify_folder: Folder) -> None:
    complete["latency"] = None
    assert "not measured in this run (--no-latency)" in Page(render(complete, verify_folder(complete))).text()


def test_no_changed_decision_is_a_finding(complete: dict[str, Any], tmp_path: Path) -> None:
    complete["verify"]["flips"] = []
    assert "None: int8 decides as fp32 does on all 525 test images." in Page(render(complete, tmp_path)).text()


def test_an_undefined_auroc_says_why(complete: dict[str, Any], tmp_path: Path) -> None:
    for block in complete["verify"]["metrics"].values():
        block.update(auroc=None, roc=[], pr=[])
    text = Page(render(complete, tmp_path)).text()
    assert "undefined" in text
    assert "curves are not defined" in text


def test_a_single_candidate_says_there_was_no_choice(complete: dict[str, Any], tmp_path: Path) -> None:
    del complete["candidates"]["candidates"][1]
    complete["choice"]["chosen"] = "fp32"
    del complete["verify"]["metrics"]["int8"]
    text = Page(render(complete, tmp_path)).text()
    assert "There was a single candidate" in text
    assert "fp32 is what ships" in text
    assert "every operator runs in float" in text


def test_a_picture_that_is_missing_leaves_a_place(complete: dict[str, Any], tmp_path: Path) -> None:
    page = Page(render(complete, tmp_path))
    assert "picture not kept" in page.text()
    assert not page.attributes("src")


def test_gates_that_did_not_pass_stand_first(complete: dict[str, Any], tmp_path: Path) -> None:
    complete["gates"][3]["verdict"] = "INCONCLUSIVE"
    complete["gates"][2]["verdict"] = "FAIL"
    page = Page(render(complete, tmp_path))
    cards = [a["class"] for tag, a in page.tags if tag == "li" and a.get("class", "").startswith("gate ")]
    assert cards == ["gate fail", "gate inconclusive", "gate pass", "gate pass"]


def test_many_classes_show_their_largest_confusions(complete: dict[str, Any], tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(15)]
    complete["data"]["classes"] = names
    matrix = [[10 if i == j else 0 for j in range(15)] for i in range(15)]
    matrix[2][7] = 5
    for block in complete["verify"]["metrics"].values():
        block["confusion"] = matrix
    text = _normal(Page(render(complete, tmp_path)).text())
    assert "the 1 largest of 1 confusions between 15 classes, n = 155" in text
    assert "5 33.3 %" in text


def test_hostile_names_stay_text(hostile: dict[str, Any], tmp_path: Path) -> None:
    html = render(hostile, tmp_path)
    html.encode()
    page = Page(html)
    assert page.open == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text()
    assert "缺陷" in page.text()
    assert "root:" not in html
    assert "\x00" not in html


def test_a_student_stands_beside_its_teacher(complete: dict[str, Any], tmp_path: Path) -> None:
    told = {"interval": [0.85, 0.92], "size_bytes": 12_000_000}
    row = {"index": 7, "path": "cells/7.png", "label": "ok", "teacher": "ok", "student": "bad", "text": None}
    row |= {"teacher_score": 0.91, "student_score": 0.77, "harmful": True, "thumbnail": None}
    complete["verify"]["distillation"] = {
        "metric": "accuracy",
        "n": 525,
        "teachers": 2,
        "arms": {
            "teacher": {**told, "value": 0.9},
            "student": {**told, "value": 0.89, "size_bytes": 6_000_000},
            "int8": {"value": 0.884, "interval": None, "size_bytes": 1_500_000},
        },
        "agreement": 0.99,
        "drop": {"metric": "accuracy", "value_pp": 1.6, "interval_pp": [0.4, 2.9]},
        "disagreements": [row, {**row, "index": 8, "label": "bad", "harmful": False}],
        "latency": {
            "ratio": 0.25,
            "threads": 1,
            "base": {"median_ms": 8.0},
            "new": {"median_ms": 2.0},
            "times_as_fast": {"value": 8.0, "interval": [7.5, 8.6]},
        },
    }
    told = {"base": "timm/resnet18", "weights": "package:small/net.pth", "history": complete["history"][:1]}
    complete["student"] = told
    text = Page(render(complete, tmp_path)).text()
    for words in (
        "Student 1 epochs; lowest",
        f"Teacher {len(complete['history'])} epochs; lowest",
        "From the teacher to what ships, accuracy drops by 1.6 pp (90 % CI 0.4 to 2.9)",
        "Student and teacher, each by its highest score, disagree on 2 of 525 test images:",
        "on 1 the teacher is right, on 1 the student.",
        "2 teachers, averaged",
        "88.4 %",
        "8.0 times",
        "16.00 ms",
        f"{complete['latency']['base']['median_ms']:.2f} ms",
        f"{complete['latency']['new']['median_ms']:.2f} ms",
        "What ships is 8.00 times (7.50 to 8.60) as fast as the teacher (2 of them, one after the other) in float",
        "in float on this machine: 2.00 ms",
        "2.00 ms against 16.00 ms",
        "the teacher was right, the student is wrong",
    ):
        assert words in text, words
    complete["device"] = {"address": "ssh://line7"}
    assert "in float on ssh://line7: 2.00 ms" in Page(render(complete, tmp_path)).text()
    del complete["verify"]["distillation"]["latency"]
    assert "were not timed in this run" in Page(render(complete, tmp_path)).text()
    card = model_card(complete)
    for row in ("| student | timm/resnet18 |", "| student began with | package:small/net.pth |"):
        assert row in card
    assert "| teacher's base model |" in card
    told["base"] = told["weights"] = None
    assert "| student | cut out of its teacher |" in model_card(complete)


def test_every_rung_says_what_was_done_and_how_long_it_took(complete: dict[str, Any], tmp_path: Path) -> None:
    int8 = complete["candidates"]["candidates"][-1]
    rungs = (("closed_form", "gptq"), ("partial_float", "gptq_more"))
    int8["ladder"] = [{"rung": rung, "method": what, "validation": int8["validation"]} for rung, what in rungs]
    timings = {"closed_form_seconds": 21.4, "partial_float_seconds": 75.0}
    complete["candidates"]["timings"] = timings
    text = Page(render(complete, tmp_path)).text()
    for words in ("Tried in this order", "what was done", "gptq_more", "21 s", "1 min 15 s"):
        assert words in text, words
    del complete["candidates"]["timings"]
    complete["timings"] = {"closed_form_seconds": 33.0}  # where `edgeft quantize` keeps them
    assert "33 s" in Page(render(complete, tmp_path)).text()


def test_a_run_without_a_student_has_no_such_section(page: Page) -> None:
    assert "Student and teacher" not in page.text()

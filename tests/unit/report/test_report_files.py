"""The card, the JUnit suite, the summaries and the pictures."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from edgeft.report import markdown
from edgeft.report.card import model_card
from edgeft.report.junit import junit
from edgeft.report.pictures import Pictures
from edgeft.report.summary import columns, markdown_summary, text_summary


def _suite(record: dict[str, Any]) -> ET.Element:
    root = ET.fromstring(junit(record))  # noqa: S314 - our own document
    assert root.tag == "testsuites"
    suite = root.find("testsuite")
    assert suite is not None
    return suite


def test_junit_has_one_case_for_each_gate(complete: dict[str, Any]) -> None:
    complete["gates"][0]["verdict"] = "FAIL"
    complete["gates"][3]["verdict"] = "INCONCLUSIVE"
    suite = _suite(complete)
    counts = {key: suite.get(key) for key in ("tests", "failures", "skipped", "errors")}
    assert counts == {"tests": "4", "failures": "1", "skipped": "1", "errors": "0"}
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [gate["name"] for gate in complete["gates"]]
    assert [[child.tag for child in case] for case in cases] == [
        ["failure", "system-out"],
        ["system-out"],
        ["system-out"],
        ["skipped", "system-out"],
    ]
    failure = cases[0].find("failure")
    assert failure is not None
    assert failure.get("message", "").startswith("FAIL: 0.38 pp (90 % CI ")


def test_junit_counts_undecided_gates_as_failures_under_strict(complete: dict[str, Any]) -> None:
    complete["gates"][3]["verdict"] = "INCONCLUSIVE"
    complete["exit_code"] = 7
    assert _suite(complete).get("failures") == "1"


def test_junit_without_gates_is_an_empty_suite(minimal: dict[str, Any]) -> None:
    assert _suite(minimal).get("tests") == "0"


def test_junit_survives_hostile_names(hostile: dict[str, Any]) -> None:
    suite = _suite(hostile)
    assert suite.findall("testcase")[0].get("name") == "<script>alert(1)</script>"


def test_the_card_tells_use_data_quality_and_limits(complete: dict[str, Any]) -> None:
    card = model_card(complete)
    assert card.startswith("# solar-cells\n")
    for expected in (
        "**PASS**",
        "defective, functional",
        "**functional** means a good part",
        "| defective | 493 | 164 | 164 |",
        "n = 525",
        "## Limits",
        "mse+pair\\_safe+bias\\_correction",
    ):
        assert expected in card


def test_the_card_names_classes_with_few_test_images(complete: dict[str, Any]) -> None:
    complete["verify"]["metrics"]["int8"]["per_class"][0]["support"] = 12
    assert "defective (12 test images)" in model_card(complete)


def test_the_card_of_a_stopped_run_says_what_is_missing(minimal: dict[str, Any]) -> None:
    card = model_card(minimal)
    assert "The counts are not in this record." in card
    assert "Speed was not measured in this build." in card


def test_markdown_keeps_hostile_names_as_text(hostile: dict[str, Any]) -> None:
    for text in (model_card(hostile), markdown_summary(hostile)):
        text.encode()
        assert "<script>" not in text
        assert "<img" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("two\nlines", "two lines"),
        ("*x* `y` [z](u)", r"\*x\* \`y\` \[z\](u)"),
    ],
)
def test_markdown_is_escaped(text: str, expected: str) -> None:
    assert markdown.escape(text) == expected


def test_a_fence_is_longer_than_what_it_holds() -> None:
    assert markdown.code_block("```\nx", "yaml") == "````yaml\n```\nx\n````"


def test_the_markdown_summary_names_what_did_not_pass(complete: dict[str, Any]) -> None:
    complete["status"] = "failed"
    complete["gates"][0].update(verdict="FAIL", detail="raise compress.calib_images")
    text = markdown_summary(complete)
    assert text.startswith("## solar-cells: FAIL\n\n1 of 4 gates fails: accuracy.")
    assert "- **accuracy**: raise compress.calib\\_images" in text
    assert "| finetune | ran | 6 min 28 s |" in text


def test_the_text_summary_is_a_table(complete: dict[str, Any]) -> None:
    lines = text_summary(complete).splitlines()
    assert lines[0] == "solar-cells: PASS. All 4 gates pass."
    assert lines[1].startswith("  accuracy  int8 ")
    gates = lines[5:]
    assert gates[0].split() == ["gate", "verdict", "value", "90", "%", "CI", "limit", "n"]
    assert len(gates) == 5
    assert gates[-1].split()[:4] == ["latency", "vs_fp32", "PASS", "0.655"]


def test_columns_align() -> None:
    assert columns([["a", "1"], ["long\nname", "10"]], words=1) == ["a           1", "long name  10"]


def test_pictures_are_read_below_their_folder_only(tmp_path: Path, png: bytes) -> None:
    folder = tmp_path / "verify"
    (folder / "flips").mkdir(parents=True)
    (folder / "flips" / "1.png").write_bytes(png)
    (folder / "page.html").write_bytes(b"<script>")
    (folder / "large.png").write_bytes(png + b"\x00" * (512 * 1024))
    (tmp_path / "outside.png").write_bytes(png)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    pictures = Pictures(folder)
    uri = pictures.data_uri("flips/1.png")
    assert uri is not None
    assert uri.startswith("data:image/png;base64,iVBORw0KGgo")
    for refused in (
        "page.html",
        "large.png",
        "../outside.png",
        "link.png",
        "/etc/passwd",
        "flips",
        "none.png",
        "",
        "a\0b",
    ):
        assert pictures.data_uri(refused) is None

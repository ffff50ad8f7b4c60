from typing import Any

import pytest

from edgeft.report import sentences
from edgeft.report.reading import View


@pytest.fixture
def small() -> dict[str, Any]:
    """Give the numbers of the style guide's example."""
    block = {"n": 525, "accuracy_interval": [0.724, 0.796]}
    return {
        "status": "passed",
        "choice": {"chosen": "int8"},
        "verify": {
            "metrics": {"fp32": {"accuracy": 0.764, **block}, "int8": {"accuracy": 0.761, **block}},
            "drop": {"metric": "accuracy", "value_pp": 0.3, "interval_pp": [0.1, 0.5], "n": 525},
        },
        "candidates": {
            "candidates": [{"name": "fp32", "size_bytes": 8_000_000}, {"name": "int8", "size_bytes": 2_000_000}]
        },
        "latency": {"base": {"median_ms": 6.0}, "new": {"median_ms": 4.0}, "ratio": 2 / 3, "interval": [0.65, 0.69],
                    "noise_floor": 0.012, "rounds": 9},
    }  # fmt: skip


def test_accuracy_in_one_sentence(small: dict[str, Any]) -> None:
    expected = "int8 76.1 % (fp32 76.4 %, drop 0.3 pp, 90 % CI 0.1 to 0.5, n = 525)"
    assert sentences.accuracy_sentence(View(small)) == expected


def test_fp32_alone_gives_its_own_interval_and_no_drop(small: dict[str, Any]) -> None:
    small["choice"]["chosen"] = "fp32"
    assert sentences.accuracy_sentence(View(small)) == "fp32 76.4 % (95 % CI 72.4 to 79.6 %, n = 525)"


def test_another_metric_is_read_from_its_own_field(small: dict[str, Any]) -> None:
    small["verify"]["drop"]["metric"] = "balanced_accuracy"
    for block in small["verify"]["metrics"].values():
        block["balanced_accuracy"] = 0.5
    assert sentences.accuracy_sentence(View(small)).startswith("int8 50.0 % (fp32 50.0 %")
    assert sentences.metric_name(View(small)) == "balanced accuracy"


def test_latency_in_one_sentence(small: dict[str, Any]) -> None:
    expected = (
        "int8 4.00 ms, fp32 6.00 ms: 1.50x faster than fp32 "
        "(ratio 0.667, 90 % CI 0.650 to 0.690, noise floor 1.2 %, 9 rounds)"
    )
    assert sentences.latency_sentence(View(small)) == expected


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(1.5, "1.50x faster than fp32"), (0.8, "1.25x slower than fp32"), (1.001, "as fast as fp32")],
)
def test_speed_says_in_which_direction(factor: float, expected: str) -> None:
    assert sentences.speed_words(factor) == expected


def test_size_in_one_sentence(small: dict[str, Any]) -> None:
    assert sentences.size_sentence(View(small)) == "int8 2.00 MB (fp32 8.00 MB, 4.0x smaller)"


def test_what_was_not_measured_is_said(minimal: dict[str, Any]) -> None:
    view = View(minimal)
    assert sentences.accuracy_sentence(view) == "Accuracy was not measured in this run."
    assert sentences.latency_sentence(view) == "Latency was not measured in this run (--no-latency)."
    assert sentences.size_sentence(view) == "The size is not recorded."
    assert sentences.status_sentence(view) == "No gate was judged in this run."


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["PASS"], "The one gate passes."),
        (["PASS", "PASS"], "All 2 gates pass."),
        (["PASS", "FAIL"], "1 of 2 gates fails: g1."),
        (["FAIL", "FAIL", "INCONCLUSIVE"], "2 of 3 gates fail: g0, g1. 1 of 3 gates is undecided: g2."),
        (["PASS", ""], "1 of 2 gates pass; the others carry no verdict."),
    ],
)
def test_status_names_the_gates_that_did_not_pass(verdicts: list[str], expected: str) -> None:
    gates = [{"name": f"g{index}", "verdict": verdict} for index, verdict in enumerate(verdicts)]
    assert sentences.status_sentence(View({"gates": gates})) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("passed", "PASS"),
        ("failed", "FAIL"),
        ("inconclusive", "INCONCLUSIVE"),
        ("", "NOT JUDGED"),
        ("odd", "NOT JUDGED"),
    ],
)
def test_the_status_is_one_word(status: str, expected: str) -> None:
    assert sentences.status_verdict(View({"status": status})) == expected

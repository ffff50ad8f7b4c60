import json
from typing import Any

import numpy as np
import pytest

from edgeft.pipeline.verification.metrics import block
from edgeft.report.reading import View
from edgeft.report.sections.accuracy import accuracy
from edgeft.report.sections.parity import hops
from edgeft.verify.decision import Decision

CLASSES = ("bad", "good")


def record(rule: Decision, points: list[dict[str, Any]] | None, slices: dict[str, list[str]]) -> View:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 160])
    bad = np.clip(rng.normal(0.25 + 0.45 * (labels == 0), 0.2), 0, 1)
    scores = np.stack([bad, 1 - bad], axis=1).astype(np.float32)
    found = block(labels, scores, CLASSES, 1, 200, positive=0, ok=1, rule=rule, slices=slices)
    values = {
        "choice": {"chosen": "fp32"},
        "data": {"classes": list(CLASSES), "ok_class": "good"},
        "verify": {"metrics": {"fp32": found}, "decision": {**rule.to_json(CLASSES), "operating_points": points}},
    }
    return View(json.loads(json.dumps(values)))


CAMERAS = {"camera": ["left", "right"] * 100}
POINT = {
    "max_overkill": 0.05,
    "stop_at": 0.6123,
    "recall": {"count": 30, "n": 40, "low": 0.6, "high": 0.85},
    "overkill": {"count": 7, "n": 160, "low": 0.02, "high": 0.08},
}


def test_thresholds_rates_and_recall_are_told() -> None:
    found = record(Decision(1, 0.3, 0.55), [POINT, {"max_overkill": 0.01, "reason": "40 are too few"}], {})
    page = str(accuracy(found))
    assert "is good where 1 - score of good is below 0.3000" in page
    assert "from there to 0.5500 it is for review by a person" in page
    assert "75.0 %" in page
    assert "7 of 160" in page
    assert "1.0 %: 40 are too few." in page
    inspected = found.at("verify", "metrics", "fp32", "inspection")
    review = inspected.at("review")
    assert review.number("count")
    assert f"{int(review.number('count') or 0)} of 200" in page
    assert "parts for review" in page


def test_one_threshold_asks_for_no_review() -> None:
    page = str(accuracy(record(Decision(1, 0.5, 0.5), [POINT], {})))
    assert "below 0.5000, else it is stopped." in page
    assert "review" not in page


@pytest.mark.parametrize("points", [None, []])
def test_without_a_class_of_good_parts_no_threshold_is_told(points: list[dict[str, Any]] | None) -> None:
    assert "Recall at a fixed" not in str(accuracy(record(Decision(), points, {})))


def test_accuracy_is_told_by_slice_with_the_gap() -> None:
    found = record(Decision(), None, CAMERAS)
    page = str(accuracy(found))
    gap = found.at("verify", "metrics", "fp32", "slices", "camera", "gap")
    assert "Test split, by camera" in page
    assert f"{gap.text('worst')} lies {100 * (gap.number('value') or 0):.1f} % behind {gap.text('best')}" in page


def test_what_the_error_is_made_of_is_told() -> None:
    layers = [{"layer": "stem", "op": "Conv", "alone": {"sqnr_db": 30.0}, "drifted": {"sqnr_db": 30.0, "cosine": 1.0}}]
    parts = {
        "tensor": "logits",
        "n": 32,
        "total": 0.05,
        "weights": 0.03,
        "clipping": 0.002,
        "rounding": 0.04,
        "runtime": 0,
    }
    found = {"n": 32, "layers": layers, "findings": [], "judged": True, "split": parts}
    values = {"choice": {"chosen": "int8"}, "verify": {"hops": [{"name": "fp32 > int8", "n": 9}], "attribution": found}}
    page = str(hops(View(values)))
    assert "What the error of logits is made of, on 32 test images" in page
    assert page.index("clipping") < page.index("activations rounded to 8 bits") < page.index("fp32 to int8")


def test_the_confusion_matrix_is_that_of_the_rule() -> None:
    by_score, by_rule = (
        record(rule, None, {}).at("verify", "metrics", "fp32").rows("confusion")
        for rule in (Decision(), Decision(1, 0.2, 0.2))
    )
    assert by_rule[0][1] < by_score[0][1]
    assert by_rule[1][0] > by_score[1][0]


def test_metrics_of_ranking_and_calibration_are_told() -> None:
    found = record(Decision(), None, {})
    page, metrics = str(accuracy(found)), found.at("verify", "metrics", "fp32")
    for title, key in (("average precision", "average_precision"), ("expected calibration error", "calibration_error")):
        value = metrics.number(key)
        assert value is not None
        assert f">{title}<" in page
        assert f"{100 * value:.1f} %" in page

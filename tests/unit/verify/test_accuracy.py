import numpy as np
import pytest

from edgeft.core.errors import DataError, UsageError
from edgeft.verify.accuracy import (
    calibration_error,
    confusion,
    decisions,
    metric_value,
    per_class,
)
from edgeft.verify.curves import pr_curve, roc_curve, thin
from edgeft.verify.intervals import metric_interval

LABELS = np.array([0, 0, 0, 1, 1])
SCORES = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]], dtype=np.float32)


def test_metrics_by_hand() -> None:
    assert metric_value("accuracy", LABELS, SCORES, 2) == pytest.approx(3 / 5)
    assert metric_value("balanced_accuracy", LABELS, SCORES, 2) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metric_value("macro_f1", LABELS, SCORES, 2) == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert metric_value("auroc", LABELS, SCORES, 2) == pytest.approx(5 / 6)
    of_0, of_1 = (1 + 1 + 3 / 4) / 3, (1 + 2 / 3) / 2
    assert metric_value("average_precision", LABELS, SCORES, 2) == pytest.approx((of_0 + of_1) / 2)
    assert confusion(LABELS, decisions(SCORES), 2).tolist() == [[2, 1], [1, 1]]


def test_calibration_error_by_hand() -> None:
    """Three bins: .6 twice of which none right, .7 and .8 right, .9 right."""
    assert calibration_error(LABELS, SCORES) == pytest.approx((2 * 0.6 + 0.3 + 0.2 + 0.1) / 5)
    with pytest.raises(DataError, match="no probabilities"):
        calibration_error(LABELS, 2 * SCORES)


def test_a_class_never_decided_counts_as_zero() -> None:
    rows = per_class(np.array([[3, 0], [2, 0]]))
    assert (rows[1].precision, rows[1].recall, rows[1].f1, rows[1].support) == (0.0, 0.0, 0.0, 2)


def test_equal_scores_decide_for_the_first_class() -> None:
    assert decisions(np.full((1, 3), 0.25, dtype=np.float32)).tolist() == [0]


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision"])
def test_interval_holds_the_value_and_repeats(metric: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    scores = np.stack([1 - labels, labels], axis=1) * 0.4 + rng.random((200, 2))
    low, high = metric_interval(metric, labels, scores, 2, seed=3)
    assert low < metric_value(metric, labels, scores, 2) < high
    assert high - low < 0.2
    assert metric_interval(metric, labels, scores, 2, seed=3) == (low, high)


def test_bootstrap_width_is_that_of_theory() -> None:
    """One class's recall r of n has standard error sqrt(r(1-r)/n); balanced accuracy averages two."""
    labels = np.repeat([0, 1], [400, 100])
    decided = labels.copy()
    decided[:80], decided[400:430] = 1, 0  # recalls 0.8 and 0.7
    low, high = metric_interval("balanced_accuracy", labels, np.eye(2)[decided], 2, seed=0)
    error = np.sqrt(0.8 * 0.2 / 400 + 0.7 * 0.3 / 100) / 2
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_refusals_name_what_is_wrong() -> None:
    with pytest.raises(UsageError, match="no metric is called 'acuracy'"):
        metric_value("acuracy", LABELS, SCORES, 2)
    with pytest.raises(DataError, match="nothing to measure on"):
        metric_value("accuracy", LABELS[:0], SCORES[:0], 2)
    with pytest.raises(DataError, match=r"expected \(5, 3\)"):
        metric_value("accuracy", LABELS, SCORES, 3)
    with pytest.raises(DataError, match="first is row 2"):
        metric_value("accuracy", LABELS, np.where(np.arange(5)[:, None] == 2, np.nan, SCORES), 2)
    with pytest.raises(DataError, match="class index 1"):
        metric_value("balanced_accuracy", LABELS[:3], SCORES[:3], 2)
    with pytest.raises(DataError, match=r"expected 0\.\.1"):
        confusion(np.array([2]), np.array([0]), 2)
    with pytest.raises(DataError, match="1 labels but 2"):
        confusion(np.array([0]), np.array([0, 1]), 2)


def test_curves_by_hand() -> None:
    roc = roc_curve(LABELS == 1, SCORES[:, 1])
    assert roc.fpr.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1])
    assert roc.tpr.tolist() == pytest.approx([0, 0.5, 0.5, 1, 1])
    pr = pr_curve(LABELS == 1, SCORES[:, 1])
    assert pr.recall[-1] == 0
    assert pr.precision[-1] == 1
    with pytest.raises(DataError, match="5 of 5"):
        roc_curve(LABELS >= 0, SCORES[:, 1])


def test_thinning_keeps_both_ends() -> None:
    assert thin(1000, 5).tolist() == [0, 250, 500, 749, 999]
    assert thin(3, 512).tolist() == [0, 1, 2]

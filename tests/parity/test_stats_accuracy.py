"""Classification metrics and curves against scikit-learn."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from edgeft.verify.accuracy import calibration_error, confusion, decisions, metric_value, per_class, weighted_ranking
from edgeft.verify.curves import pr_curve, roc_curve


def simulated(seed: int, n: int, k: int, *, ties: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[labels]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if ties:
        scores = np.round(scores, 1)
        scores[:, 0] = 1 - scores[:, 1:].sum(axis=1)
    return labels, scores.astype(np.float32)


THEIRS = {"auroc": metrics.roc_auc_score, "average_precision": metrics.average_precision_score}
CASES = [(0, 50, 2, False), (1, 400, 2, True), (2, 300, 5, False), (3, 60, 3, True)]


@pytest.mark.parametrize(("seed", "n", "k", "ties"), CASES)
def test_metrics(seed: int, n: int, k: int, ties: bool) -> None:  # noqa: FBT001 - a test parameter
    labels, scores = simulated(seed, n, k, ties=ties)
    decided = scores.argmax(axis=1)
    expected = {
        "accuracy": metrics.accuracy_score(labels, decided),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, decided),
        "macro_f1": metrics.f1_score(labels, decided, average="macro"),
        "auroc": np.mean(
            [metrics.roc_auc_score(labels == c, scores[:, c]) for c in ([1] if k == 2 else range(k))]  # one vs rest
        ),
        "average_precision": np.mean([metrics.average_precision_score(labels == c, scores[:, c]) for c in range(k)]),
    }
    for name, value in expected.items():
        assert metric_value(name, labels, scores, k) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("seed", "n", "k", "ties"), CASES)
def test_confusion_and_class_report(seed: int, n: int, k: int, ties: bool) -> None:  # noqa: FBT001 - a test parameter
    labels, scores = simulated(seed, n, k, ties=ties)
    matrix = confusion(labels, decisions(scores), k)
    assert np.array_equal(matrix, metrics.confusion_matrix(labels, scores.argmax(axis=1), labels=range(k)))
    expected = np.transpose(
        metrics.precision_recall_fscore_support(labels, scores.argmax(axis=1), labels=range(k), zero_division=0)
    )
    got = [[row.precision, row.recall, row.f1, row.support] for row in per_class(matrix)]
    np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize(("seed", "n", "k", "ties"), CASES)
def test_curves(seed: int, n: int, k: int, ties: bool) -> None:  # noqa: FBT001 - a test parameter
    labels, scores = simulated(seed, n, k, ties=ties)
    for one in range(k):
        roc = roc_curve(labels == one, scores[:, one])
        fpr, tpr, _ = metrics.roc_curve(labels == one, scores[:, one])
        np.testing.assert_allclose(np.stack([roc.fpr, roc.tpr]), np.stack([fpr, tpr]), atol=1e-12)
        pr = pr_curve(labels == one, scores[:, one])
        precision, recall, _ = metrics.precision_recall_curve(labels == one, scores[:, one])
        np.testing.assert_allclose(np.stack([pr.recall, pr.precision]), np.stack([recall, precision]), atol=1e-12)


@pytest.mark.parametrize(("metric", "theirs"), list(THEIRS.items()))
def test_weights_repeat_images(metric: str, theirs: Callable[..., float]) -> None:
    labels, scores = simulated(4, 80, 2, ties=True)
    weights = np.random.default_rng(5).integers(0, 4, (3, 80))
    for row, got in zip(weights, weighted_ranking(metric, labels, scores, weights.astype(float)), strict=True):
        repeated = np.repeat(np.arange(80), row)
        parts = [theirs(labels[repeated] == c, scores[repeated, c]) for c in range(2)]
        assert got == pytest.approx(np.mean(parts), abs=1e-12)


@pytest.mark.parametrize(("seed", "n", "k", "ties"), CASES)
def test_calibration_error(seed: int, n: int, k: int, ties: bool) -> None:  # noqa: FBT001 - a test parameter
    labels, scores = simulated(seed, n, k, ties=ties)
    confidence, right = scores.max(axis=1).astype(np.float64), scores.argmax(axis=1) == labels
    accuracy, mean_confidence = calibration_curve(right, confidence, n_bins=15)
    sizes = np.histogram(np.ceil(confidence * 15), bins=np.arange(0.5, 16))[0]
    expected = np.abs(accuracy - mean_confidence) @ sizes[sizes > 0] / n
    assert calibration_error(labels, scores) == pytest.approx(expected, abs=1e-12)

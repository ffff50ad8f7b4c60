import numpy as np
import pytest

from edgeft.finetune.evaluate import metrics
from edgeft.verify.accuracy import metric_value


@pytest.mark.parametrize("metric", ["auroc", "average_precision"])
def test_rankings_are_of_probabilities_not_of_one_logit(metric: str) -> None:
    """What is added to all logits of a row changes no probability."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    scores = rng.normal(size=(60, 2)).astype(np.float32)
    scores[:, 1] += labels
    shifted = scores + rng.normal(0, 5, (60, 1)).astype(np.float32)
    probabilities = np.exp(scores.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = metric_value(metric, labels, probabilities, 2)
    for each in (scores, shifted):
        assert metrics(each, labels, metric)[metric] == pytest.approx(expected, abs=1e-12)

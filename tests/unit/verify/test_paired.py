import numpy as np
import numpy.typing as npt
import pytest

from edgeft.core.errors import DataError
from edgeft.core.record import Verdict
from edgeft.verify.paired import discordance_bound_pp, paired_difference, tango_interval
from edgeft.verify.verdicts import at_most, below

Ints = npt.NDArray[np.int64]


def one_hot(decided: Ints, k: int = 2) -> npt.NDArray[np.float64]:
    return np.eye(k)[decided]


def test_the_sign_says_that_b_is_worse() -> None:
    labels = np.repeat([0, 1], 100)
    worse = labels.copy()
    worse[:10] = 1
    drop = paired_difference("accuracy", labels, one_hot(labels), one_hot(worse), 2, seed=0)
    assert drop.value_pp == pytest.approx(5.0)
    assert 0 < drop.low_pp < 5 < drop.high_pp < 10
    assert drop.n == 200
    gain = paired_difference("accuracy", labels, one_hot(worse), one_hot(labels), 2, seed=0)
    assert gain.value_pp == pytest.approx(-5.0)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision"])
def test_no_disagreement_is_not_certainty(metric: str) -> None:
    labels = np.repeat([0, 1], [80, 20])
    drop = paired_difference(metric, labels, one_hot(labels), one_hot(labels), 2, seed=0)
    assert drop.value_pp == 0
    assert drop.low_pp < -2
    assert drop.high_pp > 2  # z^2 / (n + z^2) = 2.6 % for n = 100


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 150)
    a, b = rng.random((150, 3)), rng.random((150, 3))
    first = paired_difference("macro_f1", labels, a, b, 3, seed=5)
    assert paired_difference("macro_f1", labels, a, b, 3, seed=5) == first
    assert paired_difference("macro_f1", labels, a, b, 3, seed=6) != first


def test_pairing_is_what_narrows_the_interval() -> None:
    """Two models that are wrong on the same images differ surely less than their own accuracies are known."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 500)
    wrong = rng.random(500) < 0.2
    a = np.where(wrong, 1 - labels, labels)
    b = a.copy()
    b[:5] = 1 - b[:5]
    drop = paired_difference("accuracy", labels, one_hot(a), one_hot(b), 2, seed=0)
    assert drop.high_pp - drop.low_pp < 2.5  # unpaired it would be about 8


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_a_model_that_is_worse_by_the_margin_seldom_passes(metric: str) -> None:
    """At a true drop of exactly the margin at most 5 % may pass; the Monte Carlo error of 1,000 runs is 0.7 %."""
    rng = np.random.default_rng(3)
    n, margin, passed = 400, 2.0, 0
    labels = np.repeat([0, 1], n // 2)
    for seed in range(1000):
        kind = rng.choice(3, size=n, p=[0.03, 0.01, 0.96])  # lost, gained, same: 2 points worse
        a = np.where(kind == 1, 1 - labels, labels)
        b = np.where(kind == 0, 1 - labels, labels)
        drop = paired_difference(metric, labels, one_hot(a), one_hot(b), 2, seed, n_resamples=200)
        passed += at_most(drop.low_pp, drop.high_pp, margin) is Verdict.PASS
    assert passed / 1000 <= 0.065


def test_an_equal_model_passes_as_often_as_the_plan_promised() -> None:
    """857 images certify 1 point at 1 % discordance with 90 % power (rules/verification.md)."""
    rng = np.random.default_rng(4)
    labels = np.zeros(857, dtype=np.int64)
    passed = 0
    for seed in range(300):
        kind = rng.choice(3, size=857, p=[0.005, 0.005, 0.99])
        a, b = (kind == 1).astype(np.int64), (kind == 0).astype(np.int64)
        drop = paired_difference("accuracy", labels, one_hot(a), one_hot(b), 2, seed, n_resamples=300)
        passed += at_most(drop.low_pp, drop.high_pp, 1.0) is Verdict.PASS
    assert passed / 300 >= 0.85


def test_changed_decisions_bound_the_drop() -> None:
    assert discordance_bound_pp(0, 299) == pytest.approx(1.0, abs=0.005)  # rules/verification.md
    assert tango_interval(3, 1, 300)[1] * 100 < discordance_bound_pp(4, 300)


def test_unusable_scores_are_refused() -> None:
    labels = np.array([0, 1])
    good, bad = one_hot(labels), np.array([[0.5, np.inf], [0.1, 0.9]])
    with pytest.raises(DataError, match="not finite"):
        paired_difference("accuracy", labels, good, bad, 2, seed=0)


def test_verdicts() -> None:
    assert at_most(-1, 2, 2) is Verdict.PASS
    assert at_most(1, 2.1, 2) is Verdict.INCONCLUSIVE
    assert at_most(2.1, 3, 2) is Verdict.FAIL
    assert below(1, 1, 1) is Verdict.INCONCLUSIVE
    assert below(0.8, 0.99, 1) is Verdict.PASS
    assert below(1.01, 1.2, 1) is Verdict.FAIL


def test_a_thousand_classes_cost_no_more_than_their_right_and_wrong() -> None:
    labels = np.arange(3000) % 1000
    good = np.eye(1000, dtype=np.float32)[labels]
    bad = good.copy()
    bad[:30] = np.roll(bad[:30], 1, axis=1)
    found = paired_difference("accuracy", labels, good, bad, 1000, seed=0)
    assert found.value_pp == pytest.approx(1.0)
    assert 0.5 < found.low_pp < 1.0 < found.high_pp < 1.6

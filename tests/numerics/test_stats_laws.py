"""What must hold of the statistics for any data."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeft.verify.accuracy import METRICS, metric_value
from edgeft.verify.distributions import clopper_pearson, wilson
from edgeft.verify.latency import min_samples, noise_floor, quantile, ratio
from edgeft.verify.paired import discordance_bound_pp, paired_difference, tango_interval

Floats = npt.NDArray[np.float64]
SEEDS = st.integers(0, 2**32 - 1)


def task(seed: int, n: int, k: int) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), rng.integers(0, k, n)])
    truth = np.eye(k)[labels]
    return labels, truth + rng.normal(0, 1, truth.shape), truth + rng.normal(0, 1.2, truth.shape)


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(5, 60), st.integers(2, 5), st.sampled_from(METRICS))
def test_metrics_are_rates_that_no_order_of_images_changes(seed: int, n: int, k: int, metric: str) -> None:
    labels, scores, _ = task(seed, n, k)
    value = metric_value(metric, labels, scores, k)
    assert 0 <= value <= 1
    order = np.random.default_rng(seed).permutation(len(labels))
    assert metric_value(metric, labels[order], scores[order], k) == pytest.approx(value, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(5, 60))
def test_auroc_sees_ranks_alone_and_turns_with_the_score(seed: int, n: int) -> None:
    labels, scores, _ = task(seed, n, 2)
    value = metric_value("auroc", labels, scores, 2)
    assert metric_value("auroc", labels, np.exp(scores), 2) == pytest.approx(value, abs=1e-12)
    assert metric_value("auroc", labels, -scores, 2) == pytest.approx(1 - value, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.integers(10, 60), st.sampled_from(METRICS))
def test_a_drop_turned_round_is_a_gain(seed: int, n: int, metric: str) -> None:
    labels, a, b = task(seed, n, 3)
    there = paired_difference(metric, labels, a, b, 3, seed=1, n_resamples=100)
    assert -100 <= there.low_pp <= there.value_pp <= there.high_pp <= 100
    back = paired_difference(metric, labels, b, a, 3, seed=1, n_resamples=100)
    assert back.value_pp == pytest.approx(-there.value_pp, abs=1e-9)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 500))
def test_tango_turns_round_and_lies_within_what_changed_decisions_allow(lost: int, gained: int, same: int) -> None:
    n = lost + gained + same
    if n == 0:
        return
    low, high = tango_interval(lost, gained, n)
    assert -1 <= low <= (lost - gained) / n <= high <= 1
    assert tango_interval(gained, lost, n) == pytest.approx((-high, -low), abs=1e-9)
    assert 100 * (lost - gained) / n <= discordance_bound_pp(lost + gained, n) + 1e-9


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 2000), st.data())
def test_intervals_of_a_rate_hold_it_and_the_exact_one_is_wider(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    for low, high in (clopper_pearson(k, n, 0.95), wilson(k, n, 0.95)):
        assert 0 <= low <= k / n + 1e-12
        assert k / n - 1e-12 <= high <= 1


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0.01, 1e4), min_size=5, max_size=400), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_a_sample_inside_its_interval(samples: list[float], q: float) -> None:
    found = quantile(samples, q)
    if len(samples) < min_samples(q):
        assert found is None
        return
    assert found is not None
    assert found.low_ms <= found.value_ms <= found.high_ms
    assert {found.low_ms, found.value_ms, found.high_ms} <= set(samples)


@settings(deadline=None, max_examples=100)
@given(SEEDS, st.integers(3, 40), st.floats(0.1, 10), st.floats(0.1, 10))
def test_a_ratio_has_no_unit_and_turns_round(seed: int, rounds: int, scale: float, unit: float) -> None:
    rng = np.random.default_rng(seed)
    base, new = np.exp(rng.normal(0, 0.1, (2, rounds, 2)))
    there, back = ratio(base * unit, scale * new * unit), ratio(scale * new, base)
    assert there.low <= there.value <= there.high
    assert (back.low, back.value, back.high) == pytest.approx((1 / there.high, 1 / there.value, 1 / there.low))
    assert noise_floor(base * unit) == pytest.approx(noise_floor(base))

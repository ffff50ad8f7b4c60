import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeft.core.errors import DataError
from edgeft.verify.accuracy import decisions
from edgeft.verify.decision import HIGHEST, Decision, badness, fit

CLASSES = ("good", "scratch", "dent")
SCORES = np.array([[0.9, 0.04, 0.06], [0.6, 0.3, 0.1], [0.4, 0.2, 0.4], [0.1, 0.1, 0.8]], np.float32)


def scores_of(bad: np.ndarray) -> np.ndarray:
    return np.stack([1 - bad, bad], axis=1)


def test_a_threshold_decides_by_how_bad_a_part_looks() -> None:
    rule = Decision(0, 0.3, 0.5)
    assert rule.decided(SCORES).tolist() == [0, 1, 2, 2]
    assert rule.review(SCORES).tolist() == [False, True, False, False]


def test_the_ends_of_the_band_are_as_documented() -> None:
    rule, scores = Decision(0, 0.25, 0.5), scores_of(np.array([0.2, 0.25, 0.5]))
    assert rule.decided(scores).tolist() == [0, 1, 1]
    assert rule.review(scores).tolist() == [False, True, False]


def test_without_thresholds_the_highest_score_decides() -> None:
    assert HIGHEST.decided(SCORES).tolist() == decisions(SCORES).tolist()
    assert not HIGHEST.review(SCORES).any()
    assert HIGHEST.scores_for("accuracy", SCORES) is SCORES


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95), st.integers(2, 5))
def test_metrics_of_decisions_see_those_of_the_threshold(seed: int, stop_at: float, k: int) -> None:
    scores = np.random.default_rng(seed).dirichlet(np.ones(k), 50)
    rule = Decision(k - 1, stop_at, min(1.0, stop_at * 1.5))
    assert decisions(rule.scores_for("accuracy", scores)).tolist() == rule.decided(scores).tolist()


def test_auroc_is_of_the_scores_themselves_and_what_is_not_finite_stays() -> None:
    rule = Decision(0, 0.01, 0.02)
    assert rule.scores_for("auroc", SCORES) is SCORES
    assert decisions(rule.scores_for("accuracy", SCORES)).tolist() == [2, 1, 2, 2]
    broken = SCORES.copy()
    broken[1, 2] = np.nan
    assert np.isnan(rule.scores_for("accuracy", broken)).any(axis=1).tolist() == [False, True, False, False]


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.4), st.floats(0.02, 0.4), st.sampled_from([0.0, 1.0, 3.0]))
def test_limits_hold_in_expectation_and_no_threshold_is_stricter_than_it_must_be(
    seed: int, max_escape: float, max_overkill: float, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [80, 60])
    bad = 1 / (1 + np.exp(-rng.normal(shift * labels, 1.0)))
    rule = fit(labels, scores_of(bad), 0, max_escape=max_escape, max_overkill=max_overkill)
    escaped = int((bad[labels == 1] < rule.stop_at).sum())
    stopped = int((bad[labels == 0] >= rule.sure_at).sum())
    assert (escaped + 1) / 61 <= max_escape + 1e-12
    assert (stopped + 1) / 81 <= max_overkill + 1e-12
    if rule.stop_at < rule.sure_at:  # a band: one part more on either side would break a limit
        worst = np.sort(bad[labels == 1])[escaped]
        assert (int((bad[labels == 1] <= worst).sum()) + 1) / 61 > max_escape
        best = np.sort(bad[labels == 0])[::-1][stopped]
        assert (int((bad[labels == 0] >= best).sum()) + 1) / 81 > max_overkill


def test_limits_hold_on_new_parts_on_average() -> None:
    rng = np.random.default_rng(5)
    escaped, stopped = [], []
    for _ in range(400):
        labels = np.repeat([0, 1], [100, 100])
        bad, new = (1 / (1 + np.exp(-rng.normal(1.5 * labels, 1.0))) for _ in range(2))
        rule = fit(labels, scores_of(bad), 0, max_escape=0.1, max_overkill=0.1)
        escaped.append((new[labels == 1] < rule.stop_at).mean())
        stopped.append((new[labels == 0] >= rule.sure_at).mean())
    for rates in (escaped, stopped):
        assert 0.08 < np.mean(rates) <= 0.1 + 3 * np.std(rates) / 20


def test_classes_far_apart_need_no_review() -> None:
    labels, bad = np.repeat([0, 1], [50, 50]), np.repeat([0.1, 0.9], [50, 50])
    rule = fit(labels, scores_of(bad), 0, max_escape=0.05, max_overkill=0.05)
    assert rule.stop_at == rule.sure_at == pytest.approx(0.5)


@pytest.mark.parametrize("limit", [{"max_escape": 0.05}, {"max_overkill": 0.05}])
def test_one_limit_gives_one_threshold_between_two_parts(limit: dict[str, float]) -> None:
    labels = np.repeat([0, 1], [40, 40])
    bad = np.concatenate([np.linspace(0.01, 0.6, 40), np.linspace(0.4, 0.99, 40)])
    rule = fit(labels, scores_of(bad), 0, **limit)
    assert rule.stop_at == rule.sure_at
    assert np.abs(badness(scores_of(bad), 0) - rule.stop_at).min() > 1e-3


def test_too_few_parts_are_refused_with_the_number_needed() -> None:
    labels, bad = np.repeat([0, 1], [200, 30]), np.linspace(0, 1, 230)
    with pytest.raises(DataError, match=r"max_escape 0\.02: 30 bad validation parts are too few") as caught:
        fit(labels, scores_of(bad), 0, max_escape=0.02)
    assert caught.value.hint is not None
    assert "it needs 49" in caught.value.hint
    fit(np.repeat([0, 1], [200, 49]), scores_of(np.linspace(0, 1, 249)), 0, max_escape=0.02)


def test_scores_that_no_threshold_divides_are_refused() -> None:
    labels = np.repeat([0, 1], [30, 30])
    with pytest.raises(DataError, match="no threshold lets them pass"):
        fit(labels, scores_of(np.ones(60)), 0, max_overkill=0.1)
    with pytest.raises(DataError, match="no threshold stops them"):
        fit(labels, scores_of(np.zeros(60)), 0, max_escape=0.1)
    with pytest.raises(DataError, match="needs max_escape or max_overkill"):
        fit(labels, scores_of(np.linspace(0, 1, 60)), 0)


def test_json_round_trip_and_what_is_no_decision() -> None:
    rule = Decision(0, 0.3, 0.5)
    assert Decision.from_json(rule.to_json(CLASSES), CLASSES) == rule
    assert Decision.from_json(HIGHEST.to_json(CLASSES), CLASSES) == HIGHEST
    for values in (
        {},
        {"method": "coin"},
        {"method": "threshold"},
        {"method": "threshold", "ok": "other", "stop_at": 0.1, "sure_at": 0.2},
        {"method": "threshold", "ok": "good", "stop_at": 0.3, "sure_at": 0.2},
        {"method": "threshold", "ok": "good", "stop_at": "x", "sure_at": 0.2},
        {"method": "other", "ok": "good", "stop_at": 0.1, "sure_at": 0.2},
    ):
        with pytest.raises(DataError):
            Decision.from_json(values, CLASSES)

"""Each loss against its formula in numpy, and what holds of it whatever the numbers are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.special import log_softmax, softmax

from edgeft.distill import losses
from edgeft.distill.losses import soft_targets

SEEDS = st.integers(0, 2**32 - 1)


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 20))
@settings(deadline=None, max_examples=50)
def test_the_loss_is_the_divergence_of_softened_answers(seed: int, temperature: float) -> None:
    student, teacher = np.random.default_rng(seed).normal(0, 3, (2, 5, 4))
    q, log_q = softmax(teacher / temperature, axis=1), log_softmax(teacher / temperature, axis=1)
    log_p = log_softmax(student / temperature, axis=1)
    expected = temperature**2 * (q * (log_q - log_p)).sum(axis=1).mean()
    found = soft_targets(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    same = soft_targets(torch.from_numpy(teacher + 7), torch.from_numpy(teacher), temperature)
    assert float(same) == pytest.approx(0, abs=1e-4)


@given(SEEDS, st.floats(0.5, 20), st.floats(0, 10))
@settings(deadline=None, max_examples=50)
def test_the_decoupled_loss_takes_target_and_others_apart(seed: int, temperature: float, others: float) -> None:
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(0, 3, (2, 5, 4))
    labels = rng.integers(0, 4, 5)
    p, q = softmax(student / temperature, axis=1), softmax(teacher / temperature, axis=1)
    total = []
    for row, label in enumerate(labels):
        pair_q, pair_p = (np.array([each[row, label], 1 - each[row, label]]) for each in (q, p))
        rest_q, rest_p = (np.delete(each[row], label) / (1 - each[row, label]) for each in (q, p))
        pair, rest = ((a * np.log(a / b)).sum() for a, b in ((pair_q, pair_p), (rest_q, rest_p)))
        total.append(pair + others * rest)
    given_labels = torch.from_numpy(labels)
    found = losses.decoupled(torch.from_numpy(student), torch.from_numpy(teacher), given_labels, temperature, others)
    assert float(found) == pytest.approx(temperature**2 * np.mean(total), rel=1e-3, abs=1e-4)


@given(SEEDS)
@settings(deadline=None, max_examples=25)
def test_weighing_others_by_their_own_mass_gives_soft_targets(seed: int) -> None:
    """Zhao et al. 2022, equation 6: KD is the decoupled loss whose second part weighs 1 - q_target, row by row."""
    student, teacher = torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (2, 1, 5)))
    label = torch.tensor([2])
    rest = 1 - float(torch.softmax(teacher, 1)[0, 2])
    found = losses.decoupled(student, teacher, label, 1.0, rest)
    assert float(found) == pytest.approx(float(soft_targets(student, teacher, 1.0)), rel=1e-4, abs=1e-5)


def test_two_classes_leave_nothing_beside_the_target() -> None:
    student, teacher = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    found = [float(losses.decoupled(student, teacher, labels, 2.0, weight)) for weight in (0.0, 8.0)]
    assert found[0] == pytest.approx(found[1])
    assert found[0] == pytest.approx(float(soft_targets(student, teacher, 2.0)), rel=1e-5)


@given(SEEDS)
@settings(deadline=None, max_examples=25)
def test_relations_are_distances_and_angles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    student, teacher = rng.normal(size=(4, 3)), rng.normal(size=(4, 6))

    def huber(a: np.ndarray, b: np.ndarray) -> float:
        gap = np.abs(np.asarray(a) - np.asarray(b))
        return float(np.where(gap < 1, gap**2 / 2, gap - 0.5).mean())

    def angles(rows: np.ndarray) -> list[float]:
        found = []
        for i in range(4):
            for j in range(4):
                for k in range(4):
                    one, two = rows[j] - rows[i], rows[k] - rows[i]
                    size = np.linalg.norm(one) * np.linalg.norm(two)
                    found.append(0.0 if size == 0 else float(one @ two / size))
        return found

    distances = huber(pdist(student) / pdist(student).mean(), pdist(teacher) / pdist(teacher).mean())
    expected = distances + 2 * huber(np.array(angles(student)), np.array(angles(teacher)))
    found = losses.relations(torch.from_numpy(student), torch.from_numpy(teacher))
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    turned = np.linalg.qr(rng.normal(size=(6, 6)))[0]  # turning and stretching change no relation
    same = losses.relations(torch.from_numpy(3 * teacher @ turned), torch.from_numpy(teacher))
    assert float(same) == pytest.approx(0, abs=1e-5)
    assert float(losses.relations(torch.ones(2, 3), torch.ones(2, 3))) == 0


def test_rows_that_are_equal_give_a_gradient_that_is_finite() -> None:
    student = torch.ones(4, 3, requires_grad=True)
    losses.relations(student, torch.randn(4, 3)).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@given(SEEDS, st.integers(1, 6))
@settings(deadline=None, max_examples=25)
def test_attention_is_judged_on_tokens_that_are_there(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    q, k, other_q, other_k = rng.normal(size=(4, 2, length, 8))
    mask = np.ones((2, length))

    def looks(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
        heads = [(each.reshape(2, length, 2, 4).transpose(0, 2, 1, 3)) for each in (queries, keys)]
        return log_softmax(heads[0] @ heads[1].transpose(0, 1, 3, 2) / 2, axis=-1)

    p, t = looks(q, k), looks(other_q, other_k)
    expected = (np.exp(t) * (t - p)).sum(-1).mean()
    tensors = [torch.from_numpy(each) for each in (q, k, other_q, other_k)]

    def found(parts: list[torch.Tensor], seen: np.ndarray) -> float:
        return float(losses.attention((parts[0], parts[1]), (parts[2], parts[3]), torch.from_numpy(seen), 2))

    assert found(tensors, mask) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    padded = [torch.cat([each, torch.randn(2, 3, 8)], dim=1) for each in tensors]
    longer = np.concatenate([mask, np.zeros((2, 3))], axis=1)
    assert found(padded, longer) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert found([tensors[0], tensors[1], tensors[0], tensors[1]], mask) == pytest.approx(0, abs=1e-6)
    own = losses.self_relations(tensors[0], tensors[2], torch.from_numpy(mask), 2)
    assert float(own) == pytest.approx(found([tensors[0]] * 2 + [tensors[2]] * 2, mask), rel=1e-5, abs=1e-7)


def test_maps_and_regressions_are_their_formulas() -> None:
    maps = torch.arange(24.0).reshape(1, 2, 3, 4)
    energy = (maps[0] ** 2).sum(0).flatten()
    assert torch.allclose(losses.attention_map(maps)[0], energy / energy.norm())
    student, teacher = torch.zeros(2, 3, 4), torch.ones(2, 3, 4) * 2
    mask = torch.tensor([[1.0, 0, 0], [1, 1, 0]])
    teacher[mask == 0] = 1e6  # padding counts for nothing
    assert float(losses.regression(student, teacher, mask)) == 4
    assert float(losses.regression(torch.zeros(5), torch.full((5,), 3.0))) == 9

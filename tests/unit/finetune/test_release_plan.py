"""Which groups `gradual` trains when, and from where on it caches."""

from hypothesis import given
from hypothesis import strategies as st

from edgeft.finetune.gradual import base_boundary, release_plan
from edgeft.finetune.loop import Phase
from edgeft.finetune.optimizers import rates_by_depth


def test_groups_are_released_from_the_top() -> None:
    found = release_plan(6, 8, head_epochs=2, every=1, per_release=2, frozen=0)
    assert found == [Phase(0, 2, 5), Phase(2, 3, 3), Phase(3, 4, 1), Phase(4, 8, 0)]


def test_frozen_groups_are_never_released() -> None:
    found = release_plan(6, 8, head_epochs=1, every=2, per_release=3, frozen=4)
    assert found == [Phase(0, 1, 5), Phase(1, 8, 4)]


def test_without_head_epochs_the_first_release_comes_at_once() -> None:
    assert release_plan(4, 3, head_epochs=0, every=1, per_release=9, frozen=0) == [Phase(0, 3, 0)]


@given(
    st.integers(2, 20), st.integers(1, 20), st.integers(0, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 25)
)
def test_every_epoch_has_one_phase_and_boundaries_only_fall(
    groups: int, epochs: int, head: int, every: int, per: int, frozen: int
) -> None:
    plan = release_plan(groups, epochs, head_epochs=head, every=every, per_release=per, frozen=frozen)
    assert [epoch for phase in plan for epoch in range(phase.first, phase.last)] == list(range(epochs))
    boundaries = [phase.boundary for phase in plan]
    assert boundaries == sorted(set(boundaries), reverse=True)
    assert all(min(frozen, groups - 1) <= boundary <= groups - 1 for boundary in boundaries)


def test_the_base_of_the_caches_is_the_lowest_boundary_that_fits() -> None:
    plan = [Phase(0, 1, 5), Phase(1, 2, 3), Phase(2, 3, 1), Phase(3, 4, 0)]
    sizes = [0, 1000, 500, 200, 100, 10]
    assert base_boundary(plan, sizes, rows=10, limit=10_000) == 1
    assert base_boundary(plan, sizes, rows=10, limit=9_999) == 3
    assert base_boundary(plan, sizes, rows=10, limit=99) is None


def test_lower_groups_learn_more_slowly() -> None:
    assert rates_by_depth(4, 1.0, 5.0, 0.5) == [0.25, 0.5, 1.0, 5.0]

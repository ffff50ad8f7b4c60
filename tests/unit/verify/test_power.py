import pytest

from edgeft.core.errors import UsageError
from edgeft.verify.power import certifiable_margin_pp, images_needed, largest_unseen_rate

# Published in rules/verification.md: 95 % one-sided, 90 % power.
TABLE = {
    1.0: {0.005: 429, 0.01: 857, 0.02: 1713, 0.05: 4282},
    0.5: {0.005: 1713, 0.01: 3426, 0.02: 6852, 0.05: 17128},
}


@pytest.mark.parametrize("margin_pp", TABLE)
def test_images_needed_reproduces_the_table(margin_pp: float) -> None:
    assert {p: images_needed(margin_pp, p) for p in TABLE[margin_pp]} == TABLE[margin_pp]


@pytest.mark.parametrize("margin_pp", TABLE)
@pytest.mark.parametrize("discordance", [0.005, 0.01, 0.02, 0.05])
def test_the_margin_of_the_needed_images_is_the_margin(margin_pp: float, discordance: float) -> None:
    n = TABLE[margin_pp][discordance]
    assert certifiable_margin_pp(n, discordance) <= margin_pp < certifiable_margin_pp(n - 1, discordance)


def test_no_failures_seen_is_the_published_bound() -> None:
    assert [round(100 * largest_unseen_rate(n), 1) for n in (30, 59, 299, 2995)] == [9.5, 5.0, 1.0, 0.1]


def test_no_discordance_needs_one_image() -> None:
    assert images_needed(1.0, 0.0) == 1


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="above 0"):
        images_needed(0.0, 0.01)
    with pytest.raises(UsageError, match="0 images"):
        certifiable_margin_pp(0, 0.01)
    with pytest.raises(UsageError, match=r"discordance 1\.5"):
        certifiable_margin_pp(10, 1.5)
    with pytest.raises(UsageError, match="0 trials"):
        largest_unseen_rate(0)

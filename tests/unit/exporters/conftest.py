"""Images for the residual network: neighbouring pixels alike, as photographs have."""

from collections.abc import Callable

import numpy as np
import pytest

SIDE = 12


@pytest.fixture
def pixels() -> Callable[[int], np.ndarray]:
    def drawn(count: int) -> np.ndarray:
        rng = np.random.default_rng(count)
        coarse = rng.normal(128, 60, (count, SIDE // 4, SIDE // 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
        return np.clip(coarse + rng.normal(0, 12, (count, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)

    return drawn

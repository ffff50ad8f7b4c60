"""Images much smaller than the model's input: scaling up adds no detail, it only makes the model slower."""

import numpy as np

from edgeft.data.audit.finding import MAX_ITEMS, Finding
from edgeft.data.decode import ImageFacts
from edgeft.runtime.preprocess import InputContract

MUCH_SMALLER = 0.75
"""Warned of where the shorter side is below this share of the model's."""


def resolution(facts: ImageFacts, paths: list[str], contract: InputContract) -> Finding:
    """Compare the images' sizes with the model's input."""
    wanted = contract.resize_to or min(contract.height, contract.width)
    shorter = np.minimum(facts.width, facts.height)
    small = np.flatnonzero(shorter < MUCH_SMALLER * wanted)
    numbers = {
        "smallest": int(shorter.min()),
        "median": float(np.median(shorter)),
        "largest": int(shorter.max()),
        "wanted": wanted,
        "much_smaller": len(small),
    }
    message = f"shorter sides from {shorter.min()} to {shorter.max()} pixels, the model takes {wanted}"
    if not len(small):
        return Finding("resolution", "info", message, numbers=numbers)
    message += (
        f"; {len(small)} of {len(facts)} images are much smaller and are scaled up, which adds no detail: "
        "a smaller model input would be as good and faster"
    )
    items = [
        {"path": paths[i], "width": int(facts.width[i]), "height": int(facts.height[i])} for i in small[:MAX_ITEMS]
    ]
    return Finding("resolution", "warning", message, items, numbers)

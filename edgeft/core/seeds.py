"""Seeds derived by name, so that adding one consumer of randomness never shifts another."""

import hashlib


def derive_seed(seed: int, name: str) -> int:
    """Return a 32-bit seed for the consumer `name`, from the run's `seed`."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big")

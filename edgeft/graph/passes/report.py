"""What a pass did: which nodes it changed, and which it looked at and left alone, each with its reason."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node that the pass is about and could not change."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class PassReport:
    """The outcome of one pass.

    Args:
        name: the pass.
        changed: names of the nodes it rewrote, in graph order.
        refused: nodes it left alone although their operator is its subject.
    """

    name: str
    changed: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()

    def __bool__(self) -> bool:
        """Return whether anything changed."""
        return bool(self.changed)

"""The names of classification metrics, for configs and commands; `edgeft.verify.accuracy` defines what they are."""

from typing import Literal, TypeAlias, get_args

Metric: TypeAlias = Literal["accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision"]

METRICS: tuple[str, ...] = get_args(Metric)
RANKING = frozenset({"auroc", "average_precision"})
"""Those of the order of scores; the others follow from decisions."""

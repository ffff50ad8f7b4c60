"""What one calibration pass collects: asked for as a request, kept as statistics that merge.

All of it is sums, counts and extremes, so memory depends on the tensors asked for and not on the number of images, and
the statistics of parts merge into those of the whole: histograms exactly, means up to the rounding of float64 sums.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeft.quantize.affine import Doubles, QuantizationError
from edgeft.quantize.observers import ChannelImportance, Histogram


@dataclass(frozen=True, slots=True)
class CalibrationRequest:
    """What to collect.

    Args:
        observed: tensors to make histograms of -> importance of their channels, or None where all count the same.
        means: tensors to average -> channel axis (negative axes count from the end).
        mean_images: the means are over the first so many images.
    """

    observed: Mapping[str, ChannelImportance | None]
    means: Mapping[str, int] = field(default_factory=dict)
    mean_images: int = 0


@dataclass(slots=True)
class CalibrationStatistics:
    """What was collected so far.

    Args:
        histograms: one per observed tensor, over all images.
        mean_sums: tensor -> sum over images of the mean per channel, float64 [C].
        images: how many images were seen.
        mean_images: how many of them are in `mean_sums`.
    """

    histograms: dict[str, Histogram]
    mean_sums: dict[str, Doubles] = field(default_factory=dict)
    images: int = 0
    mean_images: int = 0

    @property
    def means(self) -> dict[str, Doubles]:
        """Tensor -> mean per channel, float64 [C]."""
        return {tensor: total / self.mean_images for tensor, total in self.mean_sums.items()}

    def merge_(self, other: "CalibrationStatistics") -> None:
        """Add what `other`, which is left as it is, collected from other images.

        Raises:
            QuantizationError: the two observed different tensors.
        """
        averaged = [s.mean_sums.keys() for s in (self, other) if s.mean_images]
        if self.histograms.keys() != other.histograms.keys() or any(keys != averaged[0] for keys in averaged):
            raise QuantizationError("statistics of different tensors cannot be merged")
        for tensor, histogram in other.histograms.items():
            self.histograms[tensor].merge_(histogram)
        for tensor, total in other.mean_sums.items():
            self.mean_sums[tensor] = self.mean_sums[tensor] + total if tensor in self.mean_sums else total.copy()
        self.images += other.images
        self.mean_images += other.mean_images

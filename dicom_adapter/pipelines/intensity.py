"""The intensities of a series: extremes, mean, percentiles and a histogram, in rescaled units."""

from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

SAMPLE_SIZE = 4_000_000
PERCENTILES = (0.1, 1, 5, 25, 50, 75, 95, 99, 99.9)
BINS = 64

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Intensity:
    """The statistics over all frames; the sample holds one value of every `sampled_every`."""

    minimum: float
    maximum: float
    mean: float
    standard_deviation: float
    values: int
    sampled_every: int
    percentiles: dict[str, float]
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def window(self) -> tuple[float, float]:
        """The range from the 1st to the 99th percentile, or all of it when that is empty."""
        lower, upper = self.percentiles["1"], self.percentiles["99"]
        return (lower, upper) if upper > lower else (self.minimum, self.maximum)


class IntensityBuilder:
    """Takes the frames one by one; it keeps sums and a sample, not the frames."""

    def __init__(self, frames: int, columns: int, frame_size: int) -> None:
        stride = max(1, -(-frames * frame_size // SAMPLE_SIZE))
        # A stride that shares a factor with the columns would see the same few columns only.
        while gcd(stride, max(1, columns)) > 1:
            stride += 1
        self._stride = stride
        self._samples: list[Values] = []
        self._extremes: list[tuple[float, float]] = []
        self._count = 0
        self._sum = 0.0
        self._squares = 0.0

    def add(self, values: Values, ignored: npt.NDArray[np.bool_] | None) -> None:
        """Count one frame's values, but neither those ignored nor what is no finite number."""
        kept = values.ravel() if ignored is None else values[~ignored]
        if not np.isfinite(kept).all():
            kept = kept[np.isfinite(kept)]
        if not kept.size:
            return
        self._extremes.append((float(kept.min()), float(kept.max())))
        self._count += kept.size
        self._sum += float(kept.sum(dtype=np.float64))
        self._squares += float(np.square(kept, dtype=np.float64).sum())
        self._samples.append(kept[:: self._stride].copy())

    def result(self) -> Intensity | None:
        """The statistics of what was added; None when nothing was."""
        if not self._count:
            return None
        sample = np.concatenate(self._samples)
        minimum = min(low for low, _ in self._extremes)
        maximum = max(high for _, high in self._extremes)
        mean = self._sum / self._count
        span = (minimum, maximum) if maximum > minimum else (minimum - 0.5, minimum + 0.5)
        counts, edges = np.histogram(sample.astype(np.float64), bins=BINS, range=span)
        points = np.percentile(sample, PERCENTILES)
        return Intensity(
            minimum=minimum,
            maximum=maximum,
            mean=mean,
            standard_deviation=max(0.0, self._squares / self._count - mean**2) ** 0.5,
            values=self._count,
            sampled_every=self._stride,
            percentiles={
                f"{percent:g}": float(point)
                for percent, point in zip(PERCENTILES, points, strict=True)
            },
            edges=tuple(map(float, edges)),
            counts=tuple(map(int, counts)),
        )

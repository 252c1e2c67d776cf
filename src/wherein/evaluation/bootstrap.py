"""How sure a figure is: the bootstrap over images, for intervals and paired tests.

Pairs of one image are not independent, so whole images are drawn, each with all its pairs. Of an image only the sums
count, so a draw is how often each image comes up, and all draws of all figures are one matrix product. Figures that
are worked out from the same draws can be subtracted: that is the paired test.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
"""Bootstrap draws behind every interval and p-value."""
_CHUNK = 100  # draws held in memory at once


class Interval(NamedTuple):
    """Ends of a 95 % confidence interval."""

    low: float
    high: float


class Comparison(NamedTuple):
    """Difference of two methods, its 95 % interval, and the two-sided bootstrap p-value of no difference."""

    difference: float
    interval: Interval
    p: float


def resampled(columns: Sequence[NDArray[np.float64]], images: Sequence[object], seed: int) -> NDArray[np.float64]:
    """float64[K, RESAMPLES]: the sums of K columns float64[N], N >= 1, over images drawn with replacement.

    `images` names the image of each of the N pairs. The draws depend on the seed and the number of images alone, so a
    column has the same sums in whatever company it comes.

    >>> values, ones = np.array([0.0, 1.0, 1.0]), np.ones(3)
    >>> sums, counts = resampled([values, ones], ["a", "b", "b"], seed=0)
    >>> sorted({round(mean, 2) for mean in (sums / counts).tolist()})  # image a twice, a and b, b twice
    [0.0, 0.67, 1.0]
    """
    numbers = numbered(images)
    sums = np.stack([np.bincount(numbers, weights=column) for column in columns], axis=1)
    random, count = np.random.default_rng(seed), len(sums)
    totals = np.empty((RESAMPLES, len(columns)))
    for start in range(0, RESAMPLES, _CHUNK):
        draws = random.integers(count, size=(min(_CHUNK, RESAMPLES - start), count))
        times = np.empty(draws.shape)
        for row, draw in zip(times, draws, strict=True):
            row[:] = np.bincount(draw, minlength=count)
        totals[start : start + len(draws)] = times @ sums
    return totals.T


def interval(figures: NDArray[np.float64]) -> Interval:
    """95 % percentile interval of a figure from its values float64[RESAMPLES] on resampled images.

    >>> interval(np.arange(1001.0))
    Interval(low=25.0, high=975.0)
    """
    low, high = np.quantile(figures, [0.025, 0.975])
    return Interval(float(low), float(high))


def comparison(difference: float, figures: NDArray[np.float64]) -> Comparison:
    """Paired comparison of two methods from the differences float64[RESAMPLES] of their figures on the same draws.

    The p-value doubles the smaller tail of the resampled differences, with the +1 correction of Davison & Hinkley
    (1997, section 4.2), so it is never 0.

    >>> comparison(0.2, np.linspace(-0.1, 0.5, 999)).p  # 167 of 999 differences are not above 0: 2 (167 + 1) / 1000
    0.336
    """
    tail = min(np.count_nonzero(figures <= 0), np.count_nonzero(figures >= 0))
    return Comparison(difference, interval(figures), min(1.0, 2 * (int(tail) + 1) / (len(figures) + 1)))


def numbered(keys: Sequence[object]) -> NDArray[np.intp]:
    """intp[N]: the keys replaced by 0, 1, 2 ... in order of appearance.

    >>> numbered(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """
    order: dict[object, int] = {}
    return np.array([order.setdefault(key, len(order)) for key in keys], dtype=np.intp)

"""Figures of localisation quality: pure functions on float64 arrays, one value per (truth box, prediction) pair.

Pairs of one image are not independent, so the bootstrap draws images, each with all its pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wherein import geometry

MODEL_SIDE = 224
"""Side in pixels of the square model input at which PIN measures object sizes."""
RESAMPLES = 10_000
"""Bootstrap draws behind every interval and p-value."""
_CHUNK = 250  # draws held in memory at once


class Interval(NamedTuple):
    """Ends of a confidence interval."""

    low: float
    high: float


class Comparison(NamedTuple):
    """Mean difference of two methods, its 95 % interval, and the two-sided bootstrap p-value of no difference."""

    difference: float
    interval: Interval
    p: float


def mean(values: NDArray[np.float64]) -> float | None:
    """Mean of float64[N]; None when there is nothing to average."""
    return float(np.mean(values)) if len(values) else None


def precision(iou: NDArray[np.float64], threshold: float) -> float | None:
    """Share of float64[N] IoUs that reach the threshold (>=); None when there are none."""
    return mean((iou >= threshold).astype(np.float64))


def mask_iou(intersections: NDArray[np.float64], unions: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU float64[N] of each pair of masks from their pixel counts; 0 where both masks are empty.

    Its `mean` is the gIoU of the field.
    """
    return intersections / np.maximum(unions, 1)


def cumulative_iou(intersections: NDArray[np.float64], unions: NDArray[np.float64]) -> float | None:
    """The cIoU of the field: all float64[N] intersections over all unions, in pixels; None when there are none.

    Large objects weigh more in it than small ones.
    """
    return float(intersections.sum() / max(unions.sum(), 1)) if len(unions) else None


def model_area(
    boxes: NDArray[np.float64], widths: NDArray[np.float64], heights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Areas float64[N] of boxes float64[N, 4] (original pixels) after their image is squashed to the 224 square."""
    return geometry.area(boxes) * (MODEL_SIDE / widths) * (MODEL_SIDE / heights)


def medium(area: NDArray[np.float64]) -> NDArray[np.bool_]:
    """bool[N]: objects of PIN's split M, 32^2 < area <= 96^2 at model scale."""
    return (area > 32**2) & (area <= 96**2)


def large(area: NDArray[np.float64]) -> NDArray[np.bool_]:
    """bool[N]: objects of PIN's split L, area > 96^2 at model scale."""
    return area > 96**2


def best_of(iou: NDArray[np.float64], questions: Sequence[object]) -> NDArray[np.float64]:
    """float64[Q]: the best of float64[N] IoUs for each distinct question, questions in order of appearance."""
    numbers = _numbered(questions)
    best = np.zeros(numbers.max(initial=-1) + 1)
    np.maximum.at(best, numbers, iou)
    return best


def bootstrap_interval(values: NDArray[np.float64], images: Sequence[object], seed: int) -> Interval:
    """95 % percentile interval of the mean of float64[N], N >= 1, resampling images."""
    return _interval(_resampled(values, np.ones(len(values)), images, seed))


def cumulative_interval(
    intersections: NDArray[np.float64], unions: NDArray[np.float64], images: Sequence[object], seed: int
) -> Interval:
    """95 % percentile interval of the cIoU of N >= 1 pairs, resampling images."""
    return _interval(_resampled(intersections, unions, images, seed))


def compare(first: NDArray[np.float64], second: NDArray[np.float64], images: Sequence[object], seed: int) -> Comparison:
    """Paired comparison of two methods' float64[N] values on the same pairs, N >= 1, resampling images.

    The p-value doubles the smaller tail of the resampled differences, with the +1 correction of Davison & Hinkley
    (1997, section 4.2), so it is never 0.
    """
    differences = first - second
    means = _resampled(differences, np.ones(len(differences)), images, seed)
    tail = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    p = min(1.0, 2 * (tail + 1) / (len(means) + 1))
    return Comparison(float(np.mean(differences)), _interval(means), p)


def per_category(iou: NDArray[np.float64], phrases: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """For each phrase, alphabetically: how many pairs it has (`n`), their mean IoU and their P@0.5."""
    names = np.asarray(phrases, dtype=object)
    table: dict[str, dict[str, float | int | None]] = {}
    for name in sorted(set(phrases)):
        own = iou[names == name]
        table[name] = {"n": len(own), "miou": mean(own), "p@0.5": precision(own, 0.5)}
    return table


def _resampled(
    parts: NDArray[np.float64], wholes: NDArray[np.float64], images: Sequence[object], seed: int
) -> NDArray[np.float64]:
    """float64[RESAMPLES]: sum of the parts over sum of the wholes (integers) of images drawn with replacement."""
    numbers = _numbered(images)
    above, below = np.bincount(numbers, weights=parts), np.bincount(numbers, weights=wholes)
    random = np.random.default_rng(seed)
    ratios = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, _CHUNK):
        draws = random.integers(len(above), size=(min(_CHUNK, RESAMPLES - start), len(above)))
        # Only masks without any pixel have a whole of 0, and then a part of 0.
        ratios[start : start + len(draws)] = above[draws].sum(axis=1) / np.maximum(below[draws].sum(axis=1), 1)
    return ratios


def _interval(means: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(low), float(high))


def _numbered(keys: Sequence[object]) -> NDArray[np.intp]:
    """intp[N]: the keys replaced by 0, 1, 2 ... in order of appearance."""
    order: dict[object, int] = {}
    return np.array([order.setdefault(key, len(order)) for key in keys], dtype=np.intp)

"""Local bipartite matching: how well the places of one caption agree with those of another (Meng et al., CVPR'21).

Two captions that say the same have their places in the same order, but seldom word by word. Each word of the shorter is
matched with one of the longer that is about as far through it, so that all of it costs least. Lower is better.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from wherein.geometry import as_boxes

SEGMENT = 20  # words of the shorter caption that are matched at once
WHOLE = (0.0, 0.0, 1.0, 1.0)  # what stands for "no place"
FORBIDDEN = 1e6


def lbm(said: ArrayLike, true: ArrayLike, window: int = 0) -> float | None:
    """The cost of places `said` float64[N, 4] against `true` float64[M, 4], each a word's box as shares of the image.

    True boxes that are the whole image stand for no place and do not count. `window` 0 or 1: how far from its share of
    the way a word may look for its match. None where either has no place.

    >>> lbm([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 0.75]])
    0.03125
    """
    a, b = as_boxes(said), as_boxes(true)
    b = b[~(b == WHOLE).all(1)]
    if not len(a) or not len(b):
        return None
    short, long = (a, b) if len(a) <= len(b) else (b, a)
    costs = []
    for start in range(0, len(short), SEGMENT):
        end = min(start + SEGMENT, len(short))
        low, high = (place * len(long) // len(short) for place in (start, end))
        costs.append(_segment(short[start:end], long[low:high], window))
    return float(np.mean(costs))


def _segment(short: NDArray[np.float64], long: NDArray[np.float64], window: int) -> float:
    """The mean cost of matching every word of the shorter with one of its own of the longer."""
    p, m = len(short), len(long)
    cost = np.abs(short[:, None] - long[None]).mean(-1)
    i, j = np.arange(p)[:, None], np.arange(m)[None]
    allowed = ((i - window) * m / p <= j) & (j < (i + 1 + window) * m / p)
    rows, columns = linear_sum_assignment(np.where(allowed, cost, FORBIDDEN))
    return float(cost[rows, columns].sum() / p)

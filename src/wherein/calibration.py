"""Whether a score means what it says: calibration of probabilities, and how well a score tells two cases apart."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

PROBABILITIES = ("token_probability",)
"""The score kinds that are meant as the probability of the answer."""
BINS = 15
"""Of a reliability table, unless said otherwise (Guo et al., 2017)."""


class Bin(NamedTuple):
    """A row of a reliability table: `n` answers between two scores, their mean score, and the share that is right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(
    scores: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS, equal_mass: bool = True
) -> list[Bin]:
    """The reliability table of scores float64[N] in 0..1 for answers of which bool[N] are right; no empty rows.

    `equal_mass`: at most `bins` groups of about as many answers, by score; answers of one score are never parted, so
    that the table does not depend on their order. Otherwise the interval 0..1 is cut into `bins` of one width, the
    upper end of each belonging to it.

    >>> reliability(np.array([0.1, 0.3, 0.8, 0.9]), np.array([False, False, True, True]), bins=2)[1]
    Bin(low=0.8, high=0.9, n=2, confidence=0.8500000000000001, accuracy=1.0)

    Raises:
        ValueError: a score is not in 0..1.
    """
    if len(scores) == 0:
        return []
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(f"probabilities lie in 0..1, got {scores.min()} to {scores.max()}")
    order = np.argsort(scores, kind="stable")
    ranked, hits = scores[order], right[order].astype(np.float64)
    if equal_mass:
        wanted = ranked[np.arange(1, bins) * len(ranked) // bins]
        inner = np.searchsorted(ranked, wanted, side="left")
    else:
        inner = np.searchsorted(ranked, np.arange(1, bins) / bins, side="right")
    edges = np.unique([0, *inner.tolist(), len(ranked)])
    return [
        Bin(float(part[0]), float(part[-1]), len(part), float(part.mean()), float(own.mean()))
        for part, own in zip(np.split(ranked, edges[1:-1]), np.split(hits, edges[1:-1]), strict=True)
    ]


def expected_calibration_error(table: Sequence[Bin]) -> float | None:
    """The mean distance of score and share of right answers over the rows of a `reliability` table, by their counts.

    ECE (Naeini et al., 2015; Guo et al., 2017); 0 is perfect, None of an empty table. Of few answers a row it comes out
    too large, since chance alone parts score and share.

    >>> expected_calibration_error([Bin(0, 0.5, 3, 0.3, 0.2), Bin(0.5, 1, 1, 0.9, 0.5)])
    0.175
    """
    total = sum(row.n for row in table)
    return float(sum(row.n * abs(row.confidence - row.accuracy) for row in table) / total) if total else None


def roc_curve(
    scores: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The ROC of scores float64[N] for what is bool[N] true: false and true positive rates, and thresholds, float64[T].

    A case counts as positive from the threshold on (>=); the first threshold is infinite, so the curve starts at 0, 0.

    >>> wrong, right, thresholds = roc_curve(np.array([0.9, 0.6, 0.6, 0.2]), np.array([True, True, False, False]))
    >>> wrong.tolist(), right.tolist(), thresholds.tolist()
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0], [inf, 0.9, 0.6, 0.2])

    Raises:
        ValueError: there are no true cases, or only such.
    """
    if truth.all() or not truth.any():
        raise ValueError("a ROC needs true cases and false ones")
    thresholds, inverse = np.unique(scores, return_inverse=True)
    count = len(thresholds)
    right = np.bincount(inverse, weights=truth, minlength=count)[::-1].cumsum() / truth.sum()
    wrong = np.bincount(inverse, weights=~truth, minlength=count)[::-1].cumsum() / (~truth).sum()
    return np.append(0.0, wrong), np.append(0.0, right), np.append(np.inf, thresholds[::-1])


def roc_auc(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """The chance that a true one scores above a false one, ties by half (area under the ROC curve).

    >>> roc_auc(np.array([0.9, 0.6, 0.6, 0.2]), np.array([True, True, False, False]))
    0.875

    Raises:
        ValueError: there are no true cases, or only such.
    """
    wrong, right, _ = roc_curve(scores, truth)
    return float(np.trapezoid(right, wrong))


def fit_logistic(
    x: NDArray[np.float64], truth: NDArray[np.bool_], begin: NDArray[np.float64], ridge: float = 0.0
) -> NDArray[np.float64]:
    """Logistic regression: float64[F + 1], a weight for each figure of float64[N, F] and a constant, for the logit of
    what is bool[N] true.

    `begin`: the weights that the search starts from. `ridge`, times the squared weights but the constant, is added to
    the mean loss in nats, against weights that run away where the figures tell all cases apart.

    >>> figures = np.array([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]])
    >>> fit_logistic(figures, np.array([True, False, False, True, True, False]), np.zeros(2)).round(2)
    array([ 1.39, -0.69])
    """
    sign = np.where(truth, 1, -1)

    def loss(w: NDArray[np.float64]) -> float:
        """Mean logistic loss of weights float64[F + 1], and the ridge."""
        return float(np.logaddexp(0, -(x @ w[:-1] + w[-1]) * sign).mean() + ridge * (w[:-1] ** 2).sum())

    return np.asarray(minimize(loss, begin).x)

"""Which heads localise: criteria measured on many samples, made into a short list (CVPR'25, section 4, appendix A).

Pure functions on arrays over samples S, layers L and heads H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wherein.methods.heads.criteria import elbow

Floats = NDArray[np.float64]
Head = tuple[int, int]
FIRST = 2  # layers at the bottom whose heads never count
LOWEST = 10  # heads of lowest entropy that a sample votes for


@dataclass(frozen=True)
class Ranking:
    """Heads from best to worst, and what put them there.

    order: every head that was kept, best first · tau: the attention sum that keeps a head · sums, entropy, frequency,
    float64[L, H]: a head's mean attention sum, its mean spatial entropy, and the share of samples that voted for it.
    """

    order: tuple[Head, ...]
    tau: float
    sums: Floats
    entropy: Floats
    frequency: Floats


def keep(sums: Floats) -> tuple[NDArray[np.bool_], float]:
    """(bool[L, H] of heads that look at the image enough, tau) of mean attention sums float64[L, H].

    The first `FIRST` layers are out; tau is the elbow's value over all others, in whatever order they stand.
    """
    every = counted(sums)
    tau = elbow(sums[every])
    return every & (sums >= tau), tau


def counted(sums: Floats) -> NDArray[np.bool_]:
    """bool[L, H]: heads outside the first layers."""
    return np.arange(sums.shape[0])[:, None].repeat(sums.shape[1], 1) >= FIRST


def most(shares: Floats, count: int) -> list[Head]:
    """The heads of the highest float64[L, H], ties to the earlier layer and head."""
    order = np.argsort(-shares, axis=None, kind="stable")[:count]
    return [(int(i) // shares.shape[1], int(i) % shares.shape[1]) for i in order]


def votes(entropy: Floats, kept: NDArray[np.bool_], count: int = LOWEST) -> Floats:
    """The share of samples, float64[L, H], in which a head is among the `count` kept ones of lowest float64[S, L, H].

    Ties go to the lower mean entropy, then to the earlier layer and head. With fewer heads kept, all of them are voted
    for.
    """
    rows = entropy[:, kept]
    order = np.lexsort((np.arange(rows.shape[1]), rows.mean(0)))
    ranked = order[np.argsort(rows[:, order], axis=1, kind="stable")[:, :count]]
    shares = np.zeros(kept.shape)
    shares[kept] = np.bincount(ranked.ravel(), minlength=rows.shape[1]) / len(rows)
    return shares


def by_criteria(sums: Floats, entropy: Floats, count: int = LOWEST) -> Ranking:
    """The published selection from attention sums and entropies float64[S, L, H]: by frequency of votes.

    Ties go to the lower mean entropy, then to the earlier layer and head.
    """
    mean_sums, mean_entropy = sums.mean(0), entropy.mean(0)
    kept, tau = keep(mean_sums)
    frequency = votes(entropy, kept, count)
    return Ranking(_ordered(kept, -frequency, mean_entropy), tau, mean_sums, mean_entropy, frequency)


def by_agreement(sums: Floats, entropy: Floats, overlap: Floats) -> Ranking:
    """Heads whose maps agree best with known boxes, float64[S, L, H]: for samples that one has made oneself.

    The attention sum keeps heads as it does in the published selection; ties as there.
    """
    ranking = by_criteria(sums, entropy)
    kept, _ = keep(ranking.sums)
    order = _ordered(kept, -overlap.mean(0), ranking.entropy)
    return Ranking(order, ranking.tau, ranking.sums, ranking.entropy, ranking.frequency)


def rank_correlation(frequency: Floats, overlap: Floats, least: float = 0.01) -> float | None:
    """Spearman's rho between frequency and mean overlap with the truth, float64[L, H], over heads voted for in at least
    one of a hundred samples (figure 6); None for fewer than three of them, and where one of both does not vary."""
    known = frequency >= least
    if known.sum() < 3 or not np.ptp(frequency[known]) or not np.ptp(overlap[known]):
        return None
    from scipy import stats  # half a second, which every other use of heads would wait for

    return float(stats.spearmanr(frequency[known], overlap[known]).statistic)


def trials(pool: int, count: int, samples: int, seed: int) -> list[NDArray[np.int64]]:
    """The samples int64[n] of each of `count` trials, drawn without putting back from a pool.

    A trial has as many as asked for, but at most half of the pool: trials on the same samples would deviate by nothing.
    """
    drawn = min(samples, max(1, (pool + 1) // 2))
    return [np.random.default_rng([seed, trial]).permutation(pool)[:drawn] for trial in range(count)]


def spread(rankings: Sequence[Ranking]) -> tuple[Floats, Floats]:
    """Mean and standard deviation of the frequency over trials, float64[L, H] each."""
    frequencies = np.stack([ranking.frequency for ranking in rankings])
    return frequencies.mean(0), frequencies.std(0)


def _ordered(kept: NDArray[np.bool_], first: Floats, second: Floats) -> tuple[Head, ...]:
    """The kept heads by `first`, then by `second`, then by layer and head, all ascending."""
    layers, heads = np.nonzero(kept)
    order = np.lexsort((heads, layers, second[kept], first[kept]))
    return tuple((int(layers[i]), int(heads[i])) for i in order)

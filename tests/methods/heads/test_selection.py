"""From criteria to a few heads (SPEC 2.8: LH-5, LH-6, LH-7)."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wherein.methods.heads.criteria import agreement, attention_sum, spatial_entropy
from wherein.methods.heads.selection import (
    FIRST,
    by_agreement,
    by_criteria,
    keep,
    rank_correlation,
    spread,
    trials,
    votes,
)

Floats = NDArray[np.float64]
PLANTED = (17, 5)


def noise(rng: np.random.Generator, samples: int, layers: int, heads: int) -> tuple[Floats, Floats]:
    return rng.uniform(0, 0.5, (samples, layers, heads)), rng.uniform(0, 3, (samples, layers, heads))


def test_the_first_two_layers_never_count() -> None:
    """LH-5: not even with all the attention and no entropy."""
    sums, entropy = noise(np.random.default_rng(0), 20, 6, 4)
    sums[:, :FIRST], entropy[:, :FIRST] = 1.0, 0.0
    ranking = by_criteria(sums, entropy)
    assert ranking.order and all(layer >= FIRST for layer, _ in ranking.order)
    assert not ranking.frequency[:FIRST].any()


def test_every_sample_votes_for_ten() -> None:
    """LH-6."""
    sums, entropy = noise(np.random.default_rng(1), 30, 8, 8)
    kept, _ = keep(sums.mean(0))
    assert kept.sum() > 10
    frequency = votes(entropy, kept)
    assert frequency.sum() == pytest.approx(10) and frequency.max() <= 1
    assert votes(entropy, kept, 4).sum() == pytest.approx(4)
    few = np.zeros_like(kept)
    few[3, :4] = True
    np.testing.assert_array_equal(votes(entropy, few)[few], 1)


def test_order_of_heads_does_not_change_who_is_kept() -> None:
    """LH-3: heads are kept by their attention, not by their place in the network."""
    sums = np.random.default_rng(2).uniform(0, 1, (9, 8)) ** 4
    kept, tau = keep(sums)
    turned = np.concatenate([sums[:FIRST], sums[FIRST:][::-1, ::-1]])
    again, same = keep(turned)
    assert tau == same
    np.testing.assert_array_equal(again[FIRST:][::-1, ::-1], kept[FIRST:])


def test_ties_go_to_the_lower_mean_entropy_then_to_the_earlier_head() -> None:
    entropy = np.ones((4, 3, 3))
    entropy[:, 2] = [0.0, 0.0, 0.0]
    entropy[0, 2, 0] = 0.5  # so its mean is higher, though three samples tie
    kept = np.zeros((3, 3), bool)
    kept[2] = True
    np.testing.assert_allclose(votes(entropy, kept, 1)[2], [0, 1, 0])
    np.testing.assert_allclose(votes(entropy, kept, 2)[2], [0, 1, 1])
    sums = np.full((4, 3, 3), 0.5)
    assert by_criteria(sums, entropy).order == ((2, 1), (2, 2), (2, 0))


def planted(rng: np.random.Generator, samples: int, layers: int, heads: int) -> tuple[Floats, Floats, Floats]:
    """Criteria of synthetic maps: noise of many kinds, and heads that follow the object the better, the nearer they
    are to the planted one."""
    rows, figures = 12, []
    for _ in range(samples):
        maps = rng.dirichlet(np.full(rows * rows, 0.05), (layers, heads)).reshape(layers, heads, rows, rows)
        maps *= rng.uniform(0.02, 0.1, (layers, heads, 1, 1))
        y, x = rng.integers(1, 7, 2)
        truth = np.zeros((rows, rows), bool)
        truth[y : y + 5, x : x + 5] = True
        object_map = truth.astype(float)
        for step in range(12):
            head = (PLANTED[0] + step // 4, (PLANTED[1] + step % 4) % heads)
            stray = rng.dirichlet(np.full(rows * rows, 0.02)).reshape(rows, rows)
            maps[head] = 0.4 * (object_map / object_map.sum() + 0.3 * step * stray)
        figures.append((attention_sum(maps), spatial_entropy(maps), agreement(maps, truth)))
    sums, entropy, overlap = (np.stack(part).astype(np.float64) for part in zip(*figures, strict=True))
    return sums, entropy, overlap


def test_a_planted_head_is_found_first_among_1024() -> None:
    """LH-7: by the criteria alone, and the rank tells how well a head localises."""
    sums, entropy, overlap = planted(np.random.default_rng(3), 24, 32, 32)
    ranking = by_criteria(sums, entropy)
    assert ranking.order[0] == PLANTED
    rho = rank_correlation(ranking.frequency, overlap.mean(0))
    assert rho is not None and rho > 0.7
    assert by_agreement(sums, entropy, overlap).order[0] == PLANTED


def test_agreement_ranks_by_the_boxes_among_those_that_look_at_the_image() -> None:
    sums, entropy = noise(np.random.default_rng(4), 10, 5, 4)
    overlap = np.zeros_like(sums)
    best = by_criteria(sums, entropy).order[-1]
    overlap[:, best[0], best[1]] = 0.9
    overlap[:, 0, 0] = 1.0  # in the first layers
    assert by_agreement(sums, entropy, overlap).order[0] == best


def test_trials_are_drawn_by_seed_and_deviate() -> None:
    drawn = trials(100, 5, 1000, 7)
    assert len(drawn) == 5 and all(len(set(each.tolist())) == 50 for each in drawn)
    assert len({tuple(each) for each in drawn}) == 5
    for one, two in zip(drawn, trials(100, 5, 1000, 7), strict=True):
        np.testing.assert_array_equal(one, two)
    assert [len(each) for each in trials(5000, 2, 1000, 0)] == [1000, 1000]
    sums, entropy = noise(np.random.default_rng(5), 100, 8, 8)
    sums[:, :, ::2] /= 100  # half of the heads do not look at the image
    mean, deviation = spread([by_criteria(sums[each], entropy[each]) for each in drawn])
    assert mean.sum() == pytest.approx(10) and deviation.max() > 0


def test_a_correlation_of_too_few_heads_is_none() -> None:
    frequency = np.zeros((4, 4))
    frequency[2, :2] = 0.5
    assert rank_correlation(frequency, np.ones((4, 4))) is None

"""The figures of the paper on worked examples."""

from __future__ import annotations

import doctest
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherein.evaluation import lbm
from wherein.evaluation.dense import Described, box_map, dense_map, merged
from wherein.evaluation.metrics import cumulative_iou, precision

BOX = np.array([[0.0, 0.0, 100.0, 100.0]])


def words_in_common(said: str, true: Sequence[str]) -> float:
    """Stands for METEOR, which needs Java: the best share of words that are the same."""
    return max(len({*said.split()} & {*one.split()}) / len({*said.split()} | {*one.split()}) for one in true)


def test_the_examples() -> None:
    result = doctest.testmod(lbm, extraglobs={"np": np})
    assert result.attempted and not result.failed


def test_pl_10_precision_is_strict() -> None:
    assert precision(np.array([0.5, 0.5001, 0.2, 1.0]), 0.5, strict=True) == 0.5
    assert precision(np.array([]), 0.5, strict=True) is None


def test_pl_10_cumulative_iou() -> None:
    """10 of 20 pixels and 90 of 100: 100 of 120, not the mean of a half and nine tenths."""
    assert cumulative_iou(np.array([10.0, 90.0]), np.array([20.0, 100.0])) == pytest.approx(100 / 120)


def test_pl_10_dense_map_has_30_cells() -> None:
    """A box that overlaps by 0.55 and a caption with a METEOR of 0.12: right in 3 of 5 columns and 3 of 6 rows."""
    box = np.array([[0.0, 0.0, 55.0, 100.0]])
    image = Described(box, ["a cat"], np.array([0.9]), BOX, ["a dog"])
    cells = dense_map([image], lambda *_: 0.12)
    assert cells.shape == (5, 6) and cells.sum() == 9 and cells[:3, :3].all() and cells.mean() == 0.3


def test_pl_10_a_region_is_found_once() -> None:
    """Two predictions of one region, another in nothing: recall 1/2 at precision 1, read at 0, 0.01 .. 0.5 of 0.99."""
    boxes = np.array([[0.0, 0.0, 100.0, 100.0], [0.0, 0.0, 100.0, 99.0], [400.0, 400.0, 410.0, 410.0]])
    true = np.array([[0.0, 0.0, 100.0, 100.0], [200.0, 0.0, 300.0, 100.0]])
    image = Described(boxes, ["a cat"] * 3, np.array([0.9, 0.8, 0.7]), true, ["a cat", "a dog"])
    assert (dense_map([image], words_in_common) == 0.51).all()


def test_pl_10_order_counts() -> None:
    """The right one comes second: it is found at precision 1/2."""
    boxes = np.concatenate([BOX + 300, BOX])
    image = Described(boxes, ["a cat", "a cat"], np.array([0.9, 0.8]), BOX, ["a cat"])
    assert (dense_map([image], words_in_common) == 0.5).all()


def test_pl_10_the_surest_box_uses_a_region_up_whatever_it_says() -> None:
    boxes = np.concatenate([BOX, BOX])
    image = Described(boxes, ["a big dog", "a cat"], np.array([0.8, 0.9]), BOX, ["a cat"])
    assert (dense_map([image], words_in_common) == 1.0).all()  # the order of scores, not of the list
    strange = Described(boxes, ["dogs", "a cat"], np.array([0.9, 0.8]), BOX, ["a cat"])
    assert (dense_map([strange], words_in_common) == 0).all() and (box_map([strange]) == 1).all()
    beside = Described(np.concatenate([BOX + [0, 0, 100, 0], BOX]), ["a cat"] * 2, np.array([0.9, 0.8]), BOX, ["a cat"])
    assert box_map([beside]).tolist() == [1, 1, 1, 0, 0]  # an IoU of a half, and the better box comes too late


def test_pl_10_a_meteor_exceeds_its_threshold() -> None:
    image = Described(BOX, ["a cat"], np.array([0.9]), BOX, ["a dog"])
    assert dense_map([image], lambda *_: 0.05)[0].tolist() == [1, 0, 0, 0, 0, 0]
    assert (dense_map([image], lambda *_: 0.0) == 0).all() and (box_map([image]) == 1).all()


def test_regions_described_twice_are_one() -> None:
    boxes = np.concatenate([BOX, BOX + [0, 0, 0, 10], BOX + 500])
    made, said = merged(boxes, ["a cat", "an animal", "a dog"])
    assert made.tolist() == [[0, 0, 100, 105], [500, 500, 600, 600]] and said == [["a cat", "an animal"], ["a dog"]]


def test_dense_without_anything() -> None:
    none = Described(np.zeros((0, 4)), [], np.zeros(0), np.zeros((0, 4)), [])
    assert (dense_map([none], words_in_common) == 0).all()
    nothing_there = Described(BOX, ["a cat"], np.ones(1), np.zeros((0, 4)), [])
    one = Described(BOX, ["a cat"], np.ones(1), BOX, ["a cat"])
    assert (dense_map([nothing_there, one], words_in_common) > 0).all()


PLACES = np.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 0.5], [0.0, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0]])


@pytest.mark.parametrize("window", [0, 1])
def test_pl_10_lbm_of_identical_traces(window: int) -> None:
    assert lbm.lbm(PLACES, PLACES, window) == 0
    many = np.random.default_rng(0).random((47, 4))
    assert lbm.lbm(many, many, window) == 0


def test_pl_10_lbm_windows() -> None:
    """Two neighbours exchanged: half of each width is wrong without a window, and nothing within one."""
    swapped = PLACES[[1, 0, 2, 3]]
    assert lbm.lbm(swapped, PLACES, 0) == pytest.approx((0.25 + 0.25) / 4)
    assert lbm.lbm(swapped, PLACES, 1) == 0


def test_pl_10_lbm_of_unequal_length() -> None:
    """Each word said twice: the shorter finds its own; words without a place do not count, whichever is shorter."""
    doubled = PLACES.repeat(2, axis=0)
    assert lbm.lbm(PLACES, doubled) == lbm.lbm(doubled, PLACES) == 0
    assert lbm.lbm(PLACES, np.concatenate([PLACES, [lbm.WHOLE]])) == 0
    assert lbm.lbm(PLACES, [lbm.WHOLE]) is None and lbm.lbm(np.zeros((0, 4)), PLACES) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2), st.integers(0, 1), st.integers(0, 10**6))
def test_lbm_is_the_cheapest_assignment(short: int, more: int, window: int, seed: int) -> None:
    """Against all assignments there are."""
    random = np.random.default_rng(seed)
    a, b = random.random((short, 4)), random.random((short + more, 4))
    p, m = len(a), len(b)
    best = np.inf
    for order in itertools.permutations(range(m), p):
        if all((i - window) * m / p <= j < (i + 1 + window) * m / p for i, j in enumerate(order)):
            best = min(best, sum(np.abs(a[i] - b[j]).mean() for i, j in enumerate(order)) / p)
    assert lbm.lbm(a, b, window) == pytest.approx(best)

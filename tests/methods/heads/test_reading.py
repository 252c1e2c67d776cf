"""From maps to boxes (SPEC 2.8: LH-8, LH-9)."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wherein.methods.heads.method import instances
from wherein.methods.heads.reading import (
    FLOOR,
    binarise,
    doubt,
    enlarge,
    evidence,
    hull_area,
    otsu,
    regions,
    scaled,
    smooth,
)


def dot(shape: tuple[int, int] = (15, 15)) -> NDArray[np.float64]:
    values = np.zeros((1, *shape))
    values[0, shape[0] // 2, shape[1] // 2] = 1
    return values


def test_the_kernel_is_7_by_7_sigma_1_and_sums_to_one() -> None:
    """LH-8."""
    kernel = smooth(dot())[0]
    reached = np.nonzero(kernel)
    assert (reached[0].min(), reached[0].max()) == (4, 10) == (reached[1].min(), reached[1].max())
    assert kernel.sum() == pytest.approx(1)
    line = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    np.testing.assert_allclose(kernel[4:11, 4:11], np.outer(line, line) / line.sum() ** 2)
    assert smooth(dot(), 0.0) is not None and np.array_equal(smooth(dot(), 0.0), dot())
    assert np.count_nonzero(smooth(dot(), 1.0, 3)) == 9


def test_heads_are_smoothed_apart() -> None:
    both = np.concatenate([dot(), np.zeros((1, 15, 15))])
    assert not smooth(both)[1].any()


def test_scales() -> None:
    maps = np.stack([np.full((2, 2), 2.0), np.array([[1.0, 3.0], [5.0, 1.0]])])
    np.testing.assert_array_equal(scaled(maps, "none"), maps)
    np.testing.assert_allclose(scaled(maps, "sum").sum((1, 2)), [1, 1])
    np.testing.assert_allclose(scaled(maps, "range")[1], [[0, 0.5], [1, 0]])
    assert np.isfinite(scaled(maps, "range")[0]).all()


def test_rules() -> None:
    heat = np.array([[0.0, 1.0], [2.0, 5.0]])
    np.testing.assert_array_equal(binarise(heat, "mean"), [[False, False], [False, True]])  # strictly above: 2 is not
    np.testing.assert_array_equal(binarise(heat, 0.4), [[False, False], [True, True]])
    two = np.concatenate([np.random.default_rng(0).normal(1, 0.1, 60), np.random.default_rng(1).normal(3, 0.1, 40)])
    assert 1.4 < otsu(two) < 2.7
    assert binarise(two.reshape(10, 10), "otsu").sum() == 40
    for rule in ("mean", "otsu", 0.4):
        assert not binarise(np.full((3, 3), 0.1), rule).any()


def test_of_two_blobs_the_larger_hull_is_boxed() -> None:
    """LH-9; the hull counts: a ring of fewer cells encloses more than a bar."""
    heat = np.zeros((12, 12))
    heat[1, 1:12] = heat[2, 1:12] = 1.0  # 22 cells, hull 22
    heat[5:12, 2] = heat[5:12, 8] = heat[5, 2:9] = 1.0  # 19 cells, hull 49
    found = regions(heat, heat > 0.5)
    assert [tuple(region.box) for region in found] == [(2, 5, 9, 12), (1, 1, 12, 3)]
    assert found[0].hull == pytest.approx(49) and found[1].hull == pytest.approx(22)
    assert found[0].share == pytest.approx(19 / 41) and found[0].cells.sum() == 19


def test_an_empty_mask_is_the_whole_map_with_a_share_of_nothing() -> None:
    (region,) = instances(np.zeros((4, 5), np.float32), "mean", np.ones((4, 5), bool))
    assert tuple(region.box) == (0, 0, 5, 4) and region.share == 0 and region.cells.all()


def test_a_border_is_no_instance() -> None:
    """What heads see in a letterbox's border is not in the image."""
    heat = np.zeros((8, 8), np.float32)
    heat[:2] = 1.0
    heat[5, 3:6] = 0.9
    shown = np.zeros((8, 8), bool)
    shown[2:6] = True
    assert [tuple(region.box) for region in instances(heat, "mean", shown)] == [(3, 5, 6, 6)]
    heat[5] = 0
    (region,) = instances(heat, "mean", shown)
    assert region.share == 0 and (region.cells == shown).all()


def test_instances_are_the_regions_that_are_not_much_smaller() -> None:
    heat = np.zeros((20, 20), np.float32)
    heat[1:6, 1:6] = heat[10:14, 10:14] = heat[18, 18] = 1.0
    assert [tuple(region.box) for region in instances(heat, "mean", np.ones((20, 20), bool))] == [
        (1, 1, 6, 6),
        (10, 10, 14, 14),
    ]


def test_a_hull_of_one_cell_is_one_and_of_a_diagonal_more_than_its_cells() -> None:
    assert hull_area(np.ones((1, 1), bool)) == pytest.approx(1)
    assert hull_area(np.eye(3, dtype=bool)) == pytest.approx(5)


def test_enlarging_keeps_the_place() -> None:
    fine = enlarge(smooth(dot((9, 9)))[0], 4)
    assert fine.shape == (36, 36)
    assert np.unravel_index(fine.argmax(), fine.shape)[0] in (17, 18)
    np.testing.assert_array_equal(enlarge(dot()[0], 1), dot()[0])


def test_evidence_takes_out_what_is_looked_at_anyway() -> None:
    """A sink that all phrases look at says nothing; a cell that one of them looks at more is all that is left."""
    anyway = np.full((2, 1, 4, 4), 0.01)
    anyway[:, 0, 0, 0] = 0.8
    asked = np.full((1, 1, 4, 4), 0.01)
    asked[0, 0, 0, 0], asked[0, 0, 2, 3] = 0.7, 0.1
    found = evidence(asked, anyway)[0, 0]
    assert np.argwhere(found > 0).tolist() == [[2, 3]]
    nothing = FLOOR / 16  # of 16 cells
    assert found[2, 3] == pytest.approx(np.log((0.1 + nothing) / (0.01 + nothing)))
    faint, clear = evidence(asked / 1000, anyway / 1000), evidence(asked * 1000, anyway * 1000)
    assert faint.max() < 0.02 and clear.max() == pytest.approx(np.log(10), abs=0.01)


def test_doubt_tells_a_sharp_look_from_a_vague_one() -> None:
    sharp = np.zeros((3, 6, 6), np.float32)
    sharp[:, 2:4, 2:4] = 1.0
    vague = np.random.default_rng(0).uniform(0, 0.2, (3, 6, 6)).astype(np.float32)
    one, two = doubt(sharp, sharp), doubt(vague, vague)
    assert one.shape == two.shape == (5,)
    assert one[1] > two[1] and one[3] > two[3] and one[4] < two[4]
    assert np.isfinite(doubt(np.zeros((3, 6, 6)), np.zeros((3, 6, 6)))).all()

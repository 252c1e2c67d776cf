"""The two criteria of a localisation head (SPEC 2.8: LH-3, LH-4; bugs L-1, L-4 of the reference)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from wherein.methods.heads.criteria import above_mean, agreement, attention_sum, elbow, spatial_entropy

MAPS = arrays(np.float64, (5, 6), elements=st.floats(0, 1, width=32))


def naive_entropy(values: NDArray[np.float64]) -> float:
    """Flood fill, cell by cell."""
    (rows, columns), mean = values.shape, values.mean()
    left = {(r, c) for r in range(rows) for c in range(columns) if values[r, c] - mean > 1e-6 * mean}
    if not left:
        return float(np.log(rows * columns))
    total, areas = len(left), []
    while left:
        stack, area = [left.pop()], 0
        while stack:
            r, c = stack.pop()
            area += 1
            near = {(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            stack += near
        areas.append(area / total)
    return -sum(share * np.log(share) for share in areas)


def blobs(*cells: tuple[int, int], shape: tuple[int, int] = (6, 8)) -> NDArray[np.float64]:
    values = np.zeros(shape)
    for cell in cells:
        values[cell] = 1.0
    return values


def test_one_blob_has_no_entropy_and_two_equal_ones_have_ln_2() -> None:
    assert spatial_entropy(blobs((1, 1), (1, 2), (2, 1))) == 0
    assert spatial_entropy(blobs((0, 0), (5, 7))) == pytest.approx(np.log(2))
    assert spatial_entropy(blobs((2, 2), (3, 3))) == 0  # a corner is enough


def test_a_big_and_a_small_blob_weigh_by_area_not_by_attention() -> None:
    values = blobs((0, 0), (0, 1), (0, 2), (5, 7))
    loud = values.copy()
    loud[5, 7] = 1.5
    expected = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert spatial_entropy(values) == pytest.approx(expected) == spatial_entropy(loud)


def test_shares_sum_to_one_however_diffuse_the_map_is() -> None:
    """L-4: ten equal components of little attention have ln 10, where the reference gives 0.46."""
    values = np.zeros((4, 30))
    values[0, :30:3] = 0.01
    assert spatial_entropy(values) == pytest.approx(np.log(10))


def test_a_map_without_relief_is_as_scattered_as_can_be() -> None:
    assert spatial_entropy(np.full((4, 5), 0.2)) == pytest.approx(np.log(20))


@given(MAPS)
@settings(max_examples=100, deadline=None)
def test_entropy_is_that_of_a_flood_fill_and_has_no_unit(values: NDArray[np.float64]) -> None:
    assert spatial_entropy(values) == pytest.approx(naive_entropy(values), abs=1e-12)
    assert spatial_entropy(values * 4) == pytest.approx(spatial_entropy(values))


@given(arrays(np.float64, (3, 2, 5, 6), elements=st.floats(0, 1, width=32)))
@settings(max_examples=30, deadline=None)
def test_many_maps_at_once_are_each_on_its_own(maps: NDArray[np.float64]) -> None:
    found = spatial_entropy(maps)
    assert found.shape == (3, 2)
    for index in np.ndindex(3, 2):
        assert found[index] == pytest.approx(naive_entropy(maps[index]), abs=1e-12)


def test_the_sum_is_not_renormalised() -> None:
    maps = np.full((2, 3, 4), 0.01)
    np.testing.assert_allclose(attention_sum(maps), [0.12, 0.12])


def test_the_elbow_is_a_value_whatever_the_order() -> None:
    """LH-3, L-1: not an index into the network."""
    values = np.concatenate([np.linspace(0.01, 0.05, 80), np.linspace(0.06, 0.9, 20)])
    tau = elbow(values)
    assert tau in values and 0.03 < tau < 0.12
    shuffled = np.random.default_rng(0).permutation(values)
    assert elbow(shuffled) == tau and elbow(values.reshape(10, 10)) == tau
    assert elbow(values * 7) == pytest.approx(tau * 7)


def test_the_elbow_of_equal_values_is_that_value_and_of_none_an_error() -> None:
    assert elbow(np.full(9, 0.3)) == 0.3
    with pytest.raises(ValueError, match="no values"):
        elbow(np.empty(0))


def test_agreement_is_the_overlap_of_the_pseudo_mask_with_the_truth() -> None:
    truth = np.zeros((4, 4), bool)
    truth[:2, :2] = True
    maps = np.stack([blobs((0, 0), (0, 1), (1, 0), (1, 1), shape=(4, 4)), blobs((0, 0), (0, 1), (0, 2), shape=(4, 4))])
    np.testing.assert_allclose(agreement(maps, truth), [1.0, 2 / 5])
    assert above_mean(maps)[1].sum() == 3
    assert agreement(np.ones((4, 4)), np.zeros((4, 4), bool)) == 0

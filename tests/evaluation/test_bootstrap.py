"""The bootstrap over images against one that draws image by image in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wherein.evaluation import bootstrap

Values = NDArray[np.float64]


def random_values(count: int = 60, images: int = 20) -> tuple[Values, Values, list[str]]:
    random = np.random.default_rng(3)
    owners = [f"image {number}" for number in random.integers(images, size=count)]
    return random.random(count), random.random(count), owners


def naive_sums(values: Values, images: list[str], seed: int) -> list[float]:
    names = list(dict.fromkeys(images))
    sums = []
    for draw in np.random.default_rng(seed).integers(len(names), size=(bootstrap.RESAMPLES, len(names))):
        sums.append(sum(values[i] for number in draw for i, image in enumerate(images) if image == names[number]))
    return sums


def means(values: Values, images: object, seed: int) -> Values:
    """Resampled means of one column."""
    total, count = bootstrap.resampled([values, np.ones(len(values))], list(images), seed)  # type: ignore[call-overload]
    return total / count


def test_sums_equal_the_naive_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 90)
    monkeypatch.setattr(bootstrap, "_CHUNK", 7)
    first, second, images = random_values()
    found = bootstrap.resampled([first, second], images, seed=5)
    assert found.shape == (2, 90)
    for column, values in zip(found, (first, second), strict=True):
        assert column == pytest.approx(naive_sums(values, images, seed=5))


def test_a_column_has_the_same_sums_in_any_company() -> None:
    first, second, images = random_values()
    together = bootstrap.resampled([first, second], images, 0)
    np.testing.assert_allclose(bootstrap.resampled([second], images, 0)[0], together[1])


def test_interval_and_p_value_equal_the_naive_ones() -> None:
    differences = np.random.default_rng(0).normal(0.1, 0.2, 999)
    found = bootstrap.comparison(0.1, differences)
    below, above = sum(d <= 0 for d in differences), sum(d >= 0 for d in differences)
    assert found.p == pytest.approx(min(1, 2 * (min(below, above) + 1) / 1000))
    assert found.interval == pytest.approx(np.quantile(differences, [0.025, 0.975]))
    assert found.difference == 0.1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30).map(np.array), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_interval_holds_the_values_and_repeats(values: Values, seed: int) -> None:
    images = [str(number // 2) for number in range(len(values))]
    low, high = bootstrap.interval(means(values, images, seed))
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    assert (low, high) == bootstrap.interval(means(values, images, seed))


def test_images_are_resampled_and_not_boxes() -> None:
    """Copies of a box within its image are no new evidence, so they must not narrow the interval."""
    values = np.random.default_rng(0).random(30)
    once = bootstrap.interval(means(values, range(30), 1))
    repeated = bootstrap.interval(means(np.repeat(values, 10), np.repeat(np.arange(30), 10).tolist(), 1))
    assert repeated == pytest.approx(once)


def test_interval_covers_the_truth() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(40):
        low, high = bootstrap.interval(means(random.random(50), range(50), seed))
        covered += low <= 0.5 <= high
    assert covered >= 34


def test_p_values_are_never_zero_and_symmetric() -> None:
    above = means(np.full(40, 0.3), range(40), 0)
    found = bootstrap.comparison(0.3, above)
    assert found.p == 2 / (bootstrap.RESAMPLES + 1)
    assert bootstrap.comparison(-0.3, -above).p == found.p
    assert bootstrap.comparison(0.0, np.zeros(bootstrap.RESAMPLES)).p == 1.0

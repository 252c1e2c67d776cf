"""Metrics against slow, obvious references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wherein.evaluation import metrics

IOUS = st.lists(st.floats(0, 1), min_size=1, max_size=30).map(np.array)


def random_values(count: int = 60, images: int = 20) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    random = np.random.default_rng(3)
    owners = [f"image {number}" for number in random.integers(images, size=count)]
    return random.random(count), random.random(count), owners


@given(IOUS, st.floats(0, 1))
def test_precision_counts_what_reaches_the_threshold(iou: NDArray[np.float64], threshold: float) -> None:
    hits = sum(1 for value in iou if value >= threshold)
    assert metrics.precision(iou, threshold) == pytest.approx(hits / len(iou))


def test_the_threshold_itself_counts() -> None:
    assert metrics.precision(np.array([0.5, 0.3, 0.29]), 0.3) == pytest.approx(2 / 3)


def test_nothing_has_no_mean() -> None:
    assert metrics.mean(np.array([])) is None
    assert metrics.precision(np.array([]), 0.5) is None


@given(st.floats(0.1, 500), st.floats(0.1, 500), st.integers(1, 4000), st.integers(1, 4000))
def test_model_area_is_that_of_the_squashed_box(w: float, h: float, width: int, height: int) -> None:
    area = metrics.model_area(np.array([[10, 20, 10 + w, 20 + h]]), np.array([float(width)]), np.array([float(height)]))
    assert area[0] == pytest.approx((w * 224 / width) * (h * 224 / height), rel=1e-9)


def test_splits_at_their_edges() -> None:
    area = np.array([0, 32**2, 32**2 + 1e-6, 96**2, 96**2 + 1e-6, 224**2])
    assert metrics.medium(area).tolist() == [False, False, True, True, False, False]
    assert metrics.large(area).tolist() == [False, False, False, False, True, True]


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4)), min_size=0, max_size=20))
def test_best_of_is_the_maximum_of_each_question(pairs: list[tuple[float, int]]) -> None:
    best: dict[int, float] = {}
    for value, question in pairs:
        best[question] = max(best.get(question, 0.0), value)
    found = metrics.best_of(np.array([value for value, _ in pairs]), [question for _, question in pairs])
    assert found.tolist() == list(best.values())


def naive_means(values: NDArray[np.float64], images: list[str], seed: int) -> list[float]:
    names = list(dict.fromkeys(images))
    random = np.random.default_rng(seed)
    means = []
    for draw in random.integers(len(names), size=(metrics.RESAMPLES, len(names))):
        drawn = [
            value for number in draw for value, image in zip(values, images, strict=True) if image == names[number]
        ]
        means.append(sum(drawn) / len(drawn))
    return means


def test_bootstrap_equals_the_naive_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RESAMPLES", 90)
    monkeypatch.setattr(metrics, "_CHUNK", 7)
    first, second, images = random_values()
    means = naive_means(first, images, seed=5)
    assert metrics.bootstrap_interval(first, images, 5) == pytest.approx(np.quantile(means, [0.025, 0.975]))

    differences = naive_means(first - second, images, seed=5)
    below, above = sum(d <= 0 for d in differences), sum(d >= 0 for d in differences)
    found = metrics.compare(first, second, images, 5)
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert found.p == pytest.approx(min(1, 2 * (min(below, above) + 1) / 91))
    assert found.interval == pytest.approx(np.quantile(differences, [0.025, 0.975]))


@given(IOUS, st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_interval_holds_the_values_and_repeats(values: NDArray[np.float64], seed: int) -> None:
    images = [str(number // 2) for number in range(len(values))]
    low, high = metrics.bootstrap_interval(values, images, seed)
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    assert (low, high) == metrics.bootstrap_interval(values, images, seed)


def test_images_are_resampled_and_not_boxes() -> None:
    """Copies of a box within its image are no new evidence, so they must not narrow the interval."""
    values = np.random.default_rng(0).random(30)
    images = [str(number) for number in range(30)]
    once = metrics.bootstrap_interval(values, images, 1)
    repeated = metrics.bootstrap_interval(np.repeat(values, 10), list(np.repeat(images, 10)), 1)
    assert repeated == pytest.approx(once)


def test_interval_covers_the_truth() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(40):
        values = random.random(50)
        low, high = metrics.bootstrap_interval(values, range(50), seed)
        covered += low <= 0.5 <= high
    assert covered >= 34


def test_p_values_are_never_zero_and_symmetric() -> None:
    first, images = np.linspace(0.5, 0.9, 40), range(40)
    found = metrics.compare(first, first - 0.3, images, 0)
    assert found.p == 2 / (metrics.RESAMPLES + 1)
    assert found.difference == pytest.approx(0.3)
    assert metrics.compare(first - 0.3, first, images, 0).p == found.p
    assert metrics.compare(first, first, images, 0).p == 1.0


def test_masks_worked_out_by_hand() -> None:
    """Three masks: 8 of 16 pixels, 2 of 10, 0 of 4."""
    intersections, unions = np.array([8.0, 2, 0]), np.array([16.0, 10, 4])
    iou = metrics.mask_iou(intersections, unions)
    assert iou.tolist() == [0.5, 0.2, 0]
    assert metrics.cumulative_iou(intersections, unions) == 10 / 30
    assert metrics.mean(iou) == pytest.approx(0.7 / 3)
    assert metrics.precision(iou, 0.5) == 1 / 3


def test_masks_without_pixels_count_as_misses() -> None:
    nothing = np.zeros(2)
    assert metrics.mask_iou(nothing, nothing).tolist() == [0, 0]
    assert metrics.cumulative_iou(nothing, nothing) == 0
    assert metrics.cumulative_interval(nothing, nothing, ["a", "b"], 0) == (0, 0)
    assert metrics.cumulative_iou(np.array([]), np.array([])) is None


def test_interval_of_the_cumulative_iou_equals_the_naive_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RESAMPLES", 90)
    monkeypatch.setattr(metrics, "_CHUNK", 7)
    first, second, images = random_values()
    intersections, unions = np.floor(first * 50), np.floor(first * 50) + np.floor(second * 50)
    names = list(dict.fromkeys(images))
    random, ratios = np.random.default_rng(5), []
    for draw in random.integers(len(names), size=(90, len(names))):
        drawn = [pair for number in draw for pair, image in enumerate(images) if image == names[number]]
        ratios.append(sum(intersections[drawn]) / sum(unions[drawn]))
    found = metrics.cumulative_interval(intersections, unions, images, 5)
    assert found == pytest.approx(np.quantile(ratios, [0.025, 0.975]))


def test_per_category() -> None:
    table = metrics.per_category(np.array([0.2, 0.6, 1.0]), ["dog", "cat", "dog"])
    assert table == {
        "cat": {"n": 1, "miou": 0.6, "p@0.5": 1.0},
        "dog": {"n": 2, "miou": pytest.approx(0.6), "p@0.5": 0.5},
    }
    assert list(table) == ["cat", "dog"]

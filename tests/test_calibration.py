"""Calibration and ROC against slow, obvious references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherein.calibration import (
    expected_calibration_error,
    fit_logistic,
    reliability,
    roc_auc,
    roc_curve,
)

CASES = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.5, 0.7, 1.0]), st.booleans()), max_size=30)


def columns(cases: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in cases]), np.array([right for _, right in cases], dtype=bool)


@given(CASES, st.integers(1, 12), st.booleans())
def test_a_table_holds_every_answer_once(cases: list[tuple[float, bool]], bins: int, equal_mass: bool) -> None:
    table = reliability(*columns(cases), bins, equal_mass)
    assert len(table) <= bins and sum(row.n for row in table) == len(cases)
    for row in table:
        own = [(score, right) for score, right in cases if row.low <= score <= row.high]
        assert len(own) == row.n > 0  # answers of one score are never parted
        assert row.confidence == pytest.approx(np.mean([score for score, _ in own]))
        assert row.accuracy == pytest.approx(np.mean([right for _, right in own]))


@given(CASES, st.integers(1, 12))
def test_equal_widths_are_those_of_the_definition(cases: list[tuple[float, bool]], bins: int) -> None:
    error = 0.0
    for i in range(bins):
        low, high = i / bins, (i + 1) / bins
        own = [(s, r) for s, r in cases if low < s <= high or (i == 0 and s == 0)]
        if own:
            error += len(own) / len(cases) * abs(np.mean([r for _, r in own]) - np.mean([s for s, _ in own]))
    found = expected_calibration_error(reliability(*columns(cases), bins, equal_mass=False))
    assert found == (pytest.approx(error) if cases else None)


def test_equal_masses_are_equal_where_scores_differ() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(100) / 100)
    assert [row.n for row in reliability(scores, scores > 0.5, bins=4)] == [25] * 4


def test_order_does_not_matter() -> None:
    scores = np.repeat([0.3, 0.6], 10)
    right = np.arange(20) % 3 == 0
    shuffled = np.random.default_rng(0).permutation(20)
    assert reliability(scores, right, 3) == reliability(scores[shuffled], right[shuffled], 3)


def test_the_error_of_scores_that_mean_what_they_say_is_small() -> None:
    random = np.random.default_rng(0)
    scores = random.random(20_000)
    honest = reliability(scores, random.random(20_000) < scores)
    boasting = reliability(scores, random.random(20_000) < scores / 2)
    assert expected_calibration_error(honest) < 0.02  # type: ignore[operator]
    assert expected_calibration_error(boasting) == pytest.approx(0.25, abs=0.01)


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        reliability(np.array([0.5, 1.5]), np.array([True, False]))


MIXED = CASES.filter(lambda cases: len({right for _, right in cases}) == 2)


@given(MIXED)
def test_area_is_the_chance_of_the_right_order(cases: list[tuple[float, bool]]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a, true in cases if true for b, other in cases if not other]
    assert roc_auc(*columns(cases)) == pytest.approx(np.mean(pairs))


@given(MIXED)
def test_a_curve_counts_what_reaches_each_threshold(cases: list[tuple[float, bool]]) -> None:
    scores, truth = columns(cases)
    wrong, right, thresholds = roc_curve(scores, truth)
    for false_rate, true_rate, threshold in zip(wrong, right, thresholds, strict=True):
        assert true_rate == pytest.approx((scores[truth] >= threshold).mean())
        assert false_rate == pytest.approx((scores[~truth] >= threshold).mean())
    assert (wrong[0], right[0], wrong[-1], right[-1]) == (0, 0, 1, 1)


@pytest.mark.parametrize("truth", [True, False])
def test_one_sort_of_cases_has_no_roc(truth: bool) -> None:
    with pytest.raises(ValueError, match="true cases and false ones"):
        roc_auc(np.array([0.1, 0.2]), np.full(2, truth))


@pytest.mark.parametrize("begin", [np.zeros(3), np.array([1.0, -1.0, 0.5])])
def test_a_logistic_fit_is_that_of_the_definition(begin: np.ndarray) -> None:
    """Where the gradient of the likelihood is zero (Newton's steps), and its mean probability the share of the true."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    truth = rng.random(400) < 1 / (1 + np.exp(-(x @ [2.0, -1.0] + 0.5)))
    ones, w = np.column_stack([x, np.ones(400)]), np.zeros(3)
    for _ in range(20):
        p = 1 / (1 + np.exp(-(ones @ w)))
        w = w - np.linalg.solve((ones * (p * (1 - p))[:, None]).T @ ones, ones.T @ (p - truth))
    found = fit_logistic(x, truth, begin)
    np.testing.assert_allclose(found, w, atol=1e-4)
    assert (1 / (1 + np.exp(-(ones @ found)))).mean() == pytest.approx(truth.mean(), abs=1e-5)


def test_a_ridge_holds_weights_back_but_the_constant() -> None:
    x, truth = np.array([[-1.0], [-0.5], [0.5], [1.0]]), np.array([False, False, True, True])
    free, held = (abs(fit_logistic(x, truth, np.zeros(2), ridge)[0]) for ridge in (1e-6, 1e-1))
    assert held < 3 < 10 < free
    np.testing.assert_allclose(
        fit_logistic(x * 0, np.array([False, True, True, True]), np.zeros(2), 9.0)[1], np.log(3), atol=1e-4
    )

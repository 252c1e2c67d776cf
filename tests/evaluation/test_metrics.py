"""Metrics against slow, obvious references, and the examples in the docstrings of all figures."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wherein import calibration, geometry
from wherein.evaluation import answers, bootstrap, detection, metrics, soft_accuracy, vqa

IOUS = st.lists(st.floats(0, 1), min_size=1, max_size=30).map(np.array)
SIDE = st.integers(0, 40)
BOXES = st.lists(st.tuples(SIDE, SIDE, st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=8)


@pytest.mark.parametrize("module", [answers, bootstrap, calibration, detection, metrics, soft_accuracy, vqa])
def test_the_examples_in_the_docstrings(module: Any) -> None:
    failed, attempted = doctest.testmod(module)
    assert attempted > 0 and failed == 0


@given(BOXES, BOXES)
def test_iou_is_that_of_pycocotools(first: list[Any], second: list[Any]) -> None:
    mask = pytest.importorskip("pycocotools.mask")
    a, b = np.array(first, dtype=np.float64), np.array(second, dtype=np.float64)
    expected = mask.iou(a, b, np.zeros(len(b), dtype=np.uint8))
    np.testing.assert_allclose(geometry.iou(geometry.from_xywh(a), geometry.from_xywh(b)), expected, atol=1e-12)


@given(BOXES)
def test_masks_are_those_of_pycocotools(boxes: list[Any]) -> None:
    """IoU of masks from pixel counts, the pixels drawn by us."""
    mask = pytest.importorskip("pycocotools.mask")
    drawn = np.zeros((len(boxes), 80, 80), dtype=np.uint8)
    for one, (x, y, w, h) in zip(drawn, boxes, strict=True):
        one[y : y + h, x : x + w] = 1
    truth = np.roll(drawn, 1, axis=0)
    first, second = (mask.encode(np.asfortranarray(stack.transpose(1, 2, 0))) for stack in (drawn, truth))
    expected = mask.iou(first, second, np.zeros(len(boxes), dtype=np.uint8)).diagonal()
    counts = [(stack > 0).sum(axis=(1, 2)).astype(np.float64) for stack in (drawn & truth, drawn | truth)]
    np.testing.assert_allclose(metrics.mask_iou(*counts), expected, atol=1e-12)


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
    assert metrics.cumulative_iou(np.array([]), np.array([])) is None


def test_an_empty_answer_to_an_empty_truth_counts_as_the_data_say() -> None:
    """gRefCOCO's gIoU: a phrase without a target that gets no answer is right."""
    intersections, unions = np.array([0.0, 0.0, 3.0]), np.array([0.0, 5.0, 4.0])
    assert metrics.mask_iou(intersections, unions, empty=1).tolist() == [1, 0, 0.75]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_no_target_accuracy_counts(pairs: list[tuple[bool, bool]]) -> None:
    answered, there = (np.array([pair[i] for pair in pairs], dtype=bool) for i in (0, 1))
    missing = [given for given, target in pairs if not target]
    present = [given for given, target in pairs if target]
    wanted = 1 - sum(missing) / len(missing) if missing else None
    assert metrics.no_target_accuracy(answered, there) == (None if wanted is None else pytest.approx(wanted))
    wanted = sum(present) / len(present) if present else None
    assert metrics.no_target_accuracy(~answered, ~there) == (None if wanted is None else pytest.approx(wanted))


@given(BOXES, st.integers(-5, 90), st.integers(-5, 90))
def test_pointing_is_a_comparison_of_four_numbers(boxes: list[Any], x: int, y: int) -> None:
    corners = geometry.from_xywh(boxes)
    found = metrics.pointing(np.tile([float(x), float(y)], (len(boxes), 1)), corners)
    assert found.tolist() == [float(x0 <= x <= x1 and y0 <= y <= y1) for x0, y0, x1, y1 in corners.tolist()]
    assert metrics.pointing(metrics.centres(corners), corners).all()


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_a_peak_is_in_the_middle_of_its_cell(rows: int, columns: int, seed: int) -> None:
    heat = np.random.default_rng(seed).random((2, rows, columns))
    for one, (x, y) in zip(heat, metrics.peaks(heat, width=60, height=30), strict=True):
        assert one[int(y / 30 * rows), int(x / 60 * columns)] == one.max()
        assert (x / 60 * columns) % 1 == pytest.approx(0.5) and (y / 30 * rows) % 1 == pytest.approx(0.5)


def test_per_category() -> None:
    table = metrics.per_category(np.array([0.2, 0.6, 1.0]), ["dog", "cat", "dog"])
    assert table == {
        "cat": {"n": 1, "miou": 0.6, "p@0.5": 1.0},
        "dog": {"n": 2, "miou": pytest.approx(0.6), "p@0.5": 0.5},
    }
    assert list(table) == ["cat", "dog"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1)), min_size=1, max_size=20))
def test_per_category_is_the_mean_of_each(pairs: list[tuple[str, float]]) -> None:
    table = metrics.per_category(np.array([value for _, value in pairs]), [name for name, _ in pairs])
    assert list(table) == sorted({name for name, _ in pairs})
    for name, figures in table.items():
        own = [value for other, value in pairs if other == name]
        assert figures["n"] == len(own) and figures["miou"] == pytest.approx(sum(own) / len(own))
        assert figures["p@0.5"] == pytest.approx(sum(value >= 0.5 for value in own) / len(own))

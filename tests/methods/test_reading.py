"""What is read off an answer's text and probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherein.boxtext import CODECS
from wherein.methods.reading import read, score
from wherein.vlm.decoding import Step, Written


def answer(text: str, *choices: tuple[int, dict[str, float]]) -> Written:
    """An answer whose choices are (start, probability of each text); the text taken is the one that `text` holds."""
    steps = []
    for start, options in choices:
        texts = tuple(options)
        chosen = next(i for i, option in enumerate(texts) if text.startswith(option, start))
        steps.append(Step(start, texts, np.array([*options.values()]), chosen))
    return Written(text, steps, 0.0)


SURE = answer(" [10,20,60,80]")


def test_a_sure_answer_is_its_own_expectation() -> None:
    found = read(SURE, CODECS["00-99"], 99, 99)
    assert found.written.tolist() == [10, 20, 60, 80]
    assert found.expected.tolist() == pytest.approx([10, 20, 60, 80])
    assert np.abs(found.agreed - found.written).max() <= 0.5
    assert score(SURE) == 1


def test_the_expectation_is_the_mean_over_what_was_possible() -> None:
    """0.75 for 1_ (then 0.5 each for 10 and 12) and 0.25 for 3_, of which nothing more is known than 30..39."""
    codec = CODECS["00-99"]
    unsure = answer(" [10,20,60,80]", (2, {"1": 0.75, "3": 0.25}), (3, {"0": 0.5, "2": 0.5}))
    found = read(unsure, codec, 99, 198)
    assert found.written.tolist() == [10, 40, 60, 160]
    assert found.expected.tolist() == pytest.approx([0.75 * 11 + 0.25 * 34.5, 40, 60, 160])
    assert score(unsure) == pytest.approx((0.75 * 0.5) ** 0.5)


def test_the_expectation_of_a_far_edge_lies_behind_the_near_one() -> None:
    """x0 is 58: of the numbers that begin with 5, only 59 can follow."""
    unsure = answer(" [58,20,60,80]", (8, {"5": 0.5, "6": 0.5}), (9, {"0": 1.0}))
    assert read(unsure, CODECS["00-99"], 99, 99).expected[2] == pytest.approx(0.5 * 59 + 0.5 * 60)


def test_the_expectation_of_numbers_of_different_lengths() -> None:
    """In grid16, "1" begins 14 and 112..210; "14" can end there or go on to 140."""
    codec = CODECS["grid16"]
    unsure = answer(" [14,28,112,182]", (2, {"1": 0.8, "0": 0.2}), (3, {"4": 0.5, "1": 0.5}), (4, {",": 0.9, "0": 0.1}))
    found = read(unsure, codec, 224, 224)
    assert found.written.tolist() == [14, 28, 112, 182]
    assert found.expected[0] == pytest.approx(0.2 * 0 + 0.8 * (0.5 * 112 + 0.5 * (0.9 * 14 + 0.1 * 140)))


def test_the_score_is_of_digits_only() -> None:
    sure_digits = answer(" [10,20,60,80]", (0, {" [": 0.1, " ": 0.9}), (2, {"1": 1.0}))
    assert score(sure_digits) == 1


def test_strips_are_read_to_their_far_lines() -> None:
    found = read(answer(" from1 and2 to3 and2."), CODECS["ranges"], 100, 50)
    assert found.written.tolist() == [10, 10, 40, 15] and found.expected.tolist() == pytest.approx([10, 10, 40, 15])


def test_the_agreed_box_goes_with_the_many() -> None:
    """The likeliest far edge is a narrow box that the other 0.6 of the probability has little in common with."""
    options = {"1": 0.4, "6": 0.15, "7": 0.15, "8": 0.15, "9": 0.15}
    unsure = answer(" from0 and0 to1 and9.", (14, options))
    found = read(unsure, CODECS["ranges"], 100, 100)
    assert found.written[2] == 20 and found.expected[2] == pytest.approx(0.4 * 20 + 0.15 * (70 + 80 + 90 + 100))
    assert found.agreed[2] > 60 and np.abs(found.agreed[[0, 1, 3]] - [0, 0, 100]).max() <= 5


@given(
    st.lists(st.floats(0, 1), min_size=10, max_size=10).filter(sum), st.lists(st.floats(0, 1), min_size=10, max_size=10)
)
def test_drawn_boxes_lie_in_the_picture(near: list[float], far: list[float]) -> None:
    start = int(np.argmax(near))
    far = [p if k >= start else 0.0 for k, p in enumerate(far)]
    far[start] += 0.1
    first = {str(k): p / sum(near) for k, p in enumerate(near)}
    second = {str(k): p / sum(far) for k, p in enumerate(far) if k >= start}
    unsure = answer(f" from{start} and3 to{start} and5.", (5, first), (14, second))
    x0, y0, x1, y1 = read(unsure, CODECS["ranges"], 64, 48).agreed
    assert 0 <= x0 < x1 <= 64 and 0 <= y0 < y1 <= 48

"""VQA's accuracy: every published step of the normalisation, and the mean over all but one person."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherein.evaluation.soft_accuracy import normalise, soft_accuracy


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("YES", "yes"),
        (" a  dog\n", "dog"),
        ("The cat and an apple", "cat and apple"),
        ("Mr. Smith.", "mr smith"),
        ("3.5", "3.5"),
        ("10:30 a.m.", "10:30 am"),
        ("none", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("one-way", "1 way"),
        ("100,978", "100978"),
        ("red, white", "red white"),
        ("girl's", "girl's"),
        ("dont know", "don't know"),
        ("couldntve", "couldn't've"),
        ("its", "its"),
        ("50%", "50%"),
        ("$5", "$5"),
        ("what?!", "what"),
        ("", ""),
        (".", ""),
    ],
)
def test_the_published_steps(answer: str, normal: str) -> None:
    assert normalise(answer) == normal


@given(st.lists(st.sampled_from(["yes", "no", "2", "two", "a dog", "dog."]), min_size=10, max_size=10))
def test_accuracy_is_the_mean_over_all_nine_of_ten(people: list[str]) -> None:
    for answer in {*people, "nobody"}:
        nines = [
            min(sum(normalise(other) == normalise(answer) for other in nine) / 3, 1) for nine in combinations(people, 9)
        ]
        assert soft_accuracy(answer, people) == pytest.approx(sum(nines) / 10)


@pytest.mark.parametrize(("agree", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_how_many_must_agree(agree: int, accuracy: float) -> None:
    assert soft_accuracy("cat", ["cat"] * agree + ["dog"] * (10 - agree)) == pytest.approx(accuracy)

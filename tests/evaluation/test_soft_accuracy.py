"""VQA's accuracy: every step of the official evaluator, and the mean over all but one person."""

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
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldntve"),  # two are missing
        ("y'alld've", "y'all'd've"),
        ("hes im hed somebody'd", "he's im he'd somebodyd"),
        ("t-shirt", "t shirt"),
        ("t-shirt - blue", "tshirt blue"),
        ("black/white, and red/blue", "black white and red blue"),
        ("black/ white and red/blue", "black white and redblue"),
        ("1,000-2,000", "10002000"),
        ("(yes)", "yes"),
        (".5 of 2.", ".5 of 2"),
        ("no. 5", "no 5"),
        ("The-cat", "cat"),
        ("its", "its"),
        ("50%", "50%"),
        ("$5", "$5"),
        ("what?!", "what"),
        ("", ""),
        (".", ""),
    ],
)
def test_the_steps(answer: str, normal: str) -> None:
    assert normalise(answer) == normal


@given(st.lists(st.sampled_from(["yes", "no", "2", "two", "a dog", "dog."]), min_size=10, max_size=10))
def test_accuracy_is_the_mean_over_all_nine_of_ten(people: list[str]) -> None:
    for answer in {*people, "nobody"}:
        nines = [
            min(sum(normalise(other) == normalise(answer) for other in nine) / 3, 1) for nine in combinations(people, 9)
        ]
        assert soft_accuracy(answer, people) == pytest.approx(sum(nines) / 10)


@pytest.mark.parametrize(
    ("answer", "people", "accuracy"),
    [
        ("2", ["two"] * 10, 0),  # all agree: to the letter
        ("two", ["two"] * 10, 1),
        ("Yes", ["yes"] * 10, 0),
        (" yes\n", ["yes\t"] * 10, 1),
        ("a\tdog", ["a dog"] * 9 + [" a dog "], 1),
        ("2", ["two"] * 9 + ["three"], 1),
        ("Yes.", ["yes"] * 9 + ["no"], 1),
        ("the cat", ["cat"] * 2 + ["a cat."] + ["dog"] * 7, 0.9),
        ("t-shirt", ["tshirt"] * 5 + ["t shirt"] * 5, 1),
        ("t -shirt", ["tshirt"] * 5 + ["cap"] * 5, 0),
    ],
)
def test_both_sides_are_normalised_unless_all_people_agree(answer: str, people: list[str], accuracy: float) -> None:
    assert soft_accuracy(answer, people) == pytest.approx(accuracy)


@pytest.mark.parametrize(("agree", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_how_many_must_agree(agree: int, accuracy: float) -> None:
    assert soft_accuracy("cat", ["cat"] * agree + ["dog"] * (10 - agree)) == pytest.approx(accuracy)

"""A phrase is emitted only if it is true of one object alone; an absent name is true of none."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherein.synth import Backgrounds, ObjectBank, Placed, Scenes
from wherein.synth.negatives import Negatives, is_absent
from wherein.synth.referral import callings, may_be_one, referrals
from wherein.synth.scene import PRESETS

SIDE = 90
KIN = (
    *({"person", "firefighter"}, {"puppy", "golden retriever"}, {"glove", "gloves"}, {"shirt", "t-shirt"}),
    *({"teapot", "tea pot"}, {"teapot", "blue tea pot"}, {"rabbit", "rabbit face"}),
)
"""Pairs of names that one thing may go by, though neither may be the other's end."""
NAMES = (
    *("apple", "red apple", "green apple", "camel", "front door", "door"),
    *sorted(set[str]().union(*KIN)),
)
PATTERNS = {
    "left": r"(?:the )?left (.+)|(.+) on the left|(.+) left of the other .+",
    "right": r"(?:the )?right (.+)|(.+) on the right|(.+) right of the other .+",
    "top": r"(?:the )?top (.+)|(.+) at the top|(.+) above the other .+",
    "bottom": r"(?:the )?bottom (.+)|(.+) at the bottom|(.+) below the other .+",
    "middle": r"(?:the )?middle (.+)|(.+) in the middle|center (.+)|(.+) in the center",
    "before": r"front (.+)|(.+) in front|(.+) before the other .+|(.+) in front of the other .+",
    "behind": r"(.+) behind|(.+) in the back|(.+) behind the other .+",
}


def meant(phrase: str, objects: list[Placed], side: int) -> set[int]:
    """Which objects a phrase may mean, by reading it: slow, and written without a look at the code it checks."""
    tails = {" ".join(thing.name.split()[start:]) for thing in objects for start in range(len(thing.name.split()))}
    readings = {i for i, thing in enumerate(objects) if phrase in tails and same(thing.name, phrase)}
    for word, pattern in PATTERNS.items():
        for alternative in pattern.split("|"):
            match = re.fullmatch(alternative, phrase)
            if match and match[1] in tails:
                group = [i for i, thing in enumerate(objects) if same(thing.name, match[1])]
                readings |= {i for i in group if true(word, i, group, objects, side)}
    return readings


def same(name: str, called: str) -> bool:
    return {name, called} in KIN or name == called or name.endswith(f" {called}") or called.endswith(f" {name}")


def true(word: str, i: int, group: list[int], objects: list[Placed], side: int) -> bool:
    others = [j for j in group if j != i]
    x, y = (
        {j: (objects[j].box[0] + objects[j].box[2]) / 2 for j in group},
        {j: (objects[j].box[1] + objects[j].box[3]) / 2 for j in group},
    )
    if word in ("before", "behind"):
        hides = {(j, k) for j in group for k in objects[j].hides}
        return bool(others) and all(((i, j) if word == "before" else (j, i)) in hides for j in others)
    if not others:
        third = {"left": x[i] < side / 3, "right": x[i] > 2 * side / 3, "top": y[i] < side / 3}
        third["bottom"] = y[i] > 2 * side / 3
        return not any(third.values()) if word == "middle" else third[word]
    if word == "middle":
        for at in (x, y):
            lower = [j for j in others if at[j] < at[i] - 0.2 * side]
            upper = [j for j in others if at[j] > at[i] + 0.2 * side]
            if lower and len(lower) == len(upper) and len(lower) + len(upper) == len(others):
                return True
        return False
    at, sign = (x if word in ("left", "right") else y), (1 if word in ("left", "top") else -1)
    return all(sign * (at[j] - at[i]) > 0.2 * side for j in others)


@st.composite
def scenes(draw: st.DrawFn) -> list[Placed]:
    objects: list[Placed] = []
    for order in range(draw(st.integers(1, 4))):
        left, top = draw(st.integers(0, SIDE - 10)), draw(st.integers(0, SIDE - 10))
        box = np.array([left, top, draw(st.integers(left + 1, SIDE)), draw(st.integers(top + 1, SIDE))], float)
        hides = tuple(sorted(draw(st.sets(st.integers(0, order - 1))))) if order else ()
        objects.append(Placed(draw(st.sampled_from(NAMES)), box, 0, 1.0, hides))
    return objects


@given(scenes())
def test_a_phrase_means_its_object_alone(objects: list[Placed]) -> None:
    for target, phrases in enumerate(referrals(objects, SIDE)):
        assert len(set(phrases)) == len(phrases)
        for phrase in phrases:
            assert meant(phrase, objects, SIDE) == {target}, phrase


@given(scenes())
def test_what_a_phrase_is_true_of_is_never_absent(objects: list[Placed]) -> None:
    """One rule for both: a name that another object may go by tells nothing apart."""
    for target, phrases in enumerate(referrals(objects, SIDE, positions=False)):
        others = [thing for order, thing in enumerate(objects) if order != target]
        assert all(is_absent(phrase, [thing.name for thing in others]) for phrase in phrases)


def test_composites_too_and_a_pair_is_always_told_apart(bank: ObjectBank) -> None:
    made = Scenes(bank, Backgrounds.procedural(), 64, 3, PRESETS["referral"])
    pairs = 0
    for index in range(300):
        scene = made[index]
        objects = scene.composite.objects
        for target, phrases in enumerate(scene.phrases):
            for phrase in phrases:
                assert meant(phrase, objects, 64) == {target}, phrase
        if len(objects) > 1 and objects[0].name == objects[1].name:
            pairs += 1
            assert scene.phrases[0] and scene.phrases[1]
            assert objects[0].name not in scene.phrases[0] + scene.phrases[1]
    assert pairs > 50


def placed(name: str, *box: float, hides: tuple[int, ...] = ()) -> Placed:
    return Placed(name, np.array(box, float), 0, 1.0, hides)


def test_alone_it_lies_in_a_third_of_the_image() -> None:
    (phrases,) = referrals([placed("camel", 0, 40, 20, 50)], SIDE)
    assert phrases == ("camel", "left camel", "the left camel", "camel on the left")
    (phrases,) = referrals([placed("camel", 40, 40, 50, 50)], SIDE)
    assert "camel in the middle" in phrases and "left camel" not in phrases
    assert referrals([placed("camel", 0, 40, 20, 50)], SIDE, positions=False) == [("camel",)]


def test_among_its_like_it_is_told_by_its_place_among_them() -> None:
    left, right = referrals([placed("camel", 0, 0, 20, 20), placed("camel", 20, 0, 40, 20, hides=(0,))], SIDE)
    assert "left camel" in left and "right camel" in right  # though both lie in the left third or near it
    assert "camel behind the other camel" in left and "front camel" in right
    assert not any("top" in phrase or phrase == "camel" for phrase in left + right)


def test_too_close_to_tell() -> None:
    assert referrals([placed("camel", 0, 0, 20, 20), placed("camel", 5, 5, 25, 25)], SIDE) == [(), ()]


def test_a_colour_tells_apart_and_may_be_left_out() -> None:
    objects = [placed("red apple", 0, 0, 20, 20), placed("green apple", 70, 70, 90, 90)]
    red, green = referrals(objects, SIDE)
    assert "red apple" in red and "left apple" in red and "left red apple" in red and "right apple" in green
    assert "apple" not in red + green
    bare, told = referrals([placed("apple", 0, 0, 20, 20), placed("red apple", 70, 70, 90, 90)], SIDE)
    assert "red apple" not in told and "apple" not in bare  # an apple may be red
    assert "left apple" in bare and "right apple" in told
    assert "right red apple" not in told  # there may be no other red one


@pytest.mark.parametrize(("name", "other"), [sorted(pair) for pair in KIN])
def test_what_may_be_the_same_thing_is_not_told_apart(name: str, other: str) -> None:
    there, beside = placed(name, 0, 0, 20, 20), placed(other, 70, 70, 90, 90)
    first, second = referrals([there, beside], SIDE)
    assert name not in first and other not in second
    assert not is_absent(name, [beside.name]) and not is_absent(other, [there.name])


def test_what_an_object_may_be_called() -> None:
    assert callings("red apple") == ("red apple", "apple")
    assert callings("hot dog") == ("hot dog",) and callings("orange") == ("orange",)
    assert may_be_one("mountain bike", "bike") and may_be_one("bike", "mountain bike")
    assert not may_be_one("red apple", "green apple") and not may_be_one("pineapple", "apple")


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        ("camel", "apple", True),
        ("green apple", "red apple", True),
        ("red apple", "apple", False),
        ("apple", "red apple", False),
        ("rabbit", "rabbit face", False),
        ("puppy", "dog", False),
    ],
)
def test_is_absent(name: str, there: str, absent: bool) -> None:
    assert is_absent(name, [there]) is absent


def test_hard_negatives_are_near_to_what_is_there() -> None:
    negatives, rng = Negatives(["red apple", "bitter apple", "camel", "tent"]), np.random.default_rng(0)
    drawn = {negatives.draw([placed("red apple", 0, 0, 9, 9)], rng) for _ in range(300)}
    assert drawn >= {"bitter apple", "green apple", "camel", "tent"} and "red apple" not in drawn
    assert Negatives(["camel"]).draw([placed("camel", 0, 0, 9, 9)], rng) is None

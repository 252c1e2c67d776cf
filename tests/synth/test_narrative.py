"""Narratives: every object is told once, and every word knows whose it is."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherein.synth import REFERRAL, ObjectBank, compose
from wherein.synth.narrative import NOBODYS, Narrative, narrate, question
from wherein.synth.referral import referrals

WORD = st.text("abcdefghijklmnopqrstuvwxyz'-0é", min_size=1, max_size=8).filter(
    lambda word: word not in NOBODYS | {"this", "that", "my", "some"}
)
NAMES = st.lists(st.lists(WORD, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=4)


def told(names: list[str], phrases: list[list[str]], seed: int) -> Narrative:
    return narrate(names, phrases, np.random.default_rng(seed))


@given(NAMES, st.integers(0, 99), st.booleans())
def test_every_object_is_told_once_and_its_words_are_its_own(names: list[str], seed: int, placed: bool) -> None:
    phrases = [[name, f"{name} on the left"] if placed else [] for name in names]
    narrative = told(names, phrases, seed)
    assert narrative == told(names, phrases, seed)
    assert narrative.text.endswith(".")
    assert " ".join(word.text for word in narrative.words) == re.sub("[,.]", "", narrative.text)
    for word in narrative.words:
        assert narrative.text[word.start : word.end] == word.text
        assert (word.thing is None) == (word.text in NOBODYS)
    for thing, name in enumerate(names):
        own = " ".join(word.text for word in narrative.words if word.thing == thing)
        assert own in (name, f"{name} left")
    runs = [word.thing for word in narrative.words if word.thing is not None]
    changes = 1 + sum(a != b for a, b in zip(runs, runs[1:], strict=False))
    assert changes == len(names)  # the words of one object stand together


def test_objects_come_in_every_order_and_are_joined_in_both_ways() -> None:
    names = ["mug", "tent", "duck"]
    seen = [told(names, [[name] for name in names], seed) for seed in range(60)]
    orders = {tuple(word.thing for word in narrative.words if word.thing is not None) for narrative in seen}
    assert len(orders) == 6
    assert {narrative.text.count("then") for narrative in seen} == {0, 2}
    assert told(["acorn"], [[]], 0).text == "an acorn."


def test_a_place_is_told_behind_the_name_and_without_another_object() -> None:
    known = ["mug", "left mug", "the left mug", "mug on the left", "mug left of the other mug", "front mug"]
    seen = {told(["mug"], [known], seed).text for seed in range(40)}
    assert seen == {"a mug.", "a mug on the left."}


def test_an_object_that_no_phrase_tells_apart_is_told_by_its_name() -> None:
    assert {told(["mug", "mug"], [[], ["left mug"]], seed).text for seed in range(20)} == {
        "a mug and a mug.",
        "a mug and then a mug.",
    }


def test_a_question_is_one_of_the_phrases_with_or_without_an_article() -> None:
    phrases = ["red mug", "mug", "left red mug", "the left mug", "mug above the other mug"]
    seen = {question("red mug", phrases, np.random.default_rng(seed)) for seed in range(300)}
    bare = {form for phrase in phrases for form in (phrase, f"the {phrase.removeprefix('the ')}")}
    assert seen == bare | {"a red mug", "a mug", "a mug above the other mug"}
    assert question("owl", ["owl"], np.random.default_rng(3)) == question("owl", ["owl"], np.random.default_rng(3))


def test_a_question_about_nothing_is_refused() -> None:
    with pytest.raises(ValueError):
        question("mug", [], np.random.default_rng(0))


def test_places_that_are_told_are_true_of_composites(bank: ObjectBank) -> None:
    """A told "left" is the left one of two, or in the left third."""
    side, placed = 64, 0
    small: Any = bank.keep(lambda cutout: cutout.name in bank.names[:40])
    for seed in range(60):
        rng = np.random.default_rng(seed)
        objects = compose(np.zeros((side, side, 3), np.uint8), small, rng, REFERRAL).objects
        phrases = referrals(objects, side)
        narrative = narrate([thing.name for thing in objects], phrases, rng)
        for word in narrative.words:
            if word.text not in ("left", "right") or word.thing is None:
                continue
            placed += 1
            name = objects[word.thing].name
            centres = [thing.box[[0, 2]].mean() for thing in objects if thing.name == name]
            own = objects[word.thing].box[[0, 2]].mean()
            edge = min(centres) if word.text == "left" else max(centres)
            assert own == edge if len(centres) > 1 else own < side / 3 or own > side * 2 / 3
    assert placed > 10

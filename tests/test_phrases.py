"""Phrases as users type them, and the noun phrases that prompts are made of."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherein import phrases
from wherein.errors import InputError
from wherein.phrases import MAX_PHRASE, check_phrases, head, mirrored, noun_phrase


@pytest.mark.parametrize(
    ("phrase", "core", "noun"),
    [
        ("cat", "cat", "a cat"),
        ("The cat.", "cat", "a cat"),
        ("  a   red\tmug ", "red mug", "a red mug"),
        ("AN Apple!", "apple", "an apple"),
        ("that old man?", "old man", "an old man"),
        ("my umbrella", "umbrella", "an umbrella"),
        ("some water", "water", "a water"),
        ("another dog", "another dog", "an another dog"),  # no determiner, only begins like one
        ("theatre", "theatre", "a theatre"),
        ("a cat on the mat", "cat on the mat", "a cat on the mat"),
        ("the", "the", "a the"),
        ("Émile", "émile", "a émile"),
    ],
)
def test_phrases(phrase: str, core: str, noun: str) -> None:
    assert head(phrase) == core
    assert noun_phrase(phrase) == noun


@given(st.text())
def test_any_text_is_one_line_in_lower_case(phrase: str) -> None:
    core = head(phrase)
    assert core == core.strip() and "\n" not in core and "  " not in core
    assert noun_phrase(phrase) in (f"a {core}", f"an {core}")


@pytest.mark.parametrize(
    ("phrases", "says"),
    [
        ([], "no phrase"),
        (None, "must be a text such as 'a red mug', not NoneType"),
        (3, "not int"),
        (b"cup", "not bytes"),
        ([None], "not NoneType"),
        (["cup", 3], "not int"),
        ([b"cup"], "not bytes"),
        ("", "names nothing"),
        (["a cat", " \t\n "], "names nothing"),
        ("?!", "names nothing"),
        ("\u200b\u200d", "names nothing"),  # zero-width characters only
        ("a" * (MAX_PHRASE + 1), "501 characters"),
        ("a\x00cat", "control"),
        ("a\ncat", "line break"),
        ("a\u2028cat", "line break"),
        ("a\udcff", "UTF-8"),
    ],
)
def test_unusable_phrases(phrases: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        check_phrases(phrases)
    assert len(str(caught.value).splitlines()) == 1 and str(caught.value).isprintable()


def test_usable_phrases() -> None:
    phrases = ["a" * MAX_PHRASE, "Ü", "赤いマグ", "👩\u200d🚀", "7", "+", "[red]a cat[/red]"]
    assert check_phrases(phrases) == phrases
    assert check_phrases(" a cat ") == ["a cat"]
    assert check_phrases(phrase for phrase in ("a cat", "a dog")) == ["a cat", "a dog"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("LEFT right", "RIGHT left"),
        ("the upright piano", "the upright piano"),
        ("a bright copyright sign", "a bright copyright sign"),
        ("leftover food on the left", "leftover food on the right"),
        ("lefthand, right-most, leftward, rightside", "righthand, left-most, rightward, leftside"),
        ("a cat", "a cat"),
    ],
)
def test_words_for_sides(text: str, other: str) -> None:
    assert mirrored(text) == other and mirrored(other) == text


def test_the_example() -> None:
    assert doctest.testmod(phrases) == (0, 1)

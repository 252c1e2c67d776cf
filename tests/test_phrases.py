"""Phrases as users type them, and the noun phrases that prompts are made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherein.phrases import head, noun_phrase


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

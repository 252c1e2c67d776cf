"""From what a user types to the noun phrase a prompt needs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from wherein.errors import InputError

MAX_PHRASE = 500  # characters; a longer text is a mistake, and would crowd the image out of a small model's context

_SIDES = re.compile(r"(left|right)(?=\b|hand|most|ward|side)", re.IGNORECASE)
_DETERMINERS = ("a ", "an ", "the ", "this ", "that ", "my ", "some ")


def unpunctuated(phrase: str) -> str:
    """The phrase as it was typed, without final punctuation: "The  cat." -> "The cat"."""
    return " ".join(phrase.split()).rstrip(".!?,;: ")


def head(phrase: str) -> str:
    """The phrase in lower case, without final punctuation and without its leading determiner: "The cat." -> "cat"."""
    words = unpunctuated(phrase.lower())
    for determiner in _DETERMINERS:
        if words.startswith(determiner) and len(words) > len(determiner):
            return words[len(determiner) :]
    return words


def noun_phrase(phrase: str) -> str:
    """The phrase with an indefinite article by its first letter: "the cat" -> "a cat", "Apple" -> "an apple"."""
    words = head(phrase)
    return f"{'an' if words[:1] in tuple('aeiou') else 'a'} {words}"


def mirrored(text: str) -> str:
    """A text with left and right exchanged, in the case they are written in.

    >>> mirrored("Left of the rightmost cup, the left-hand one is bright")
    'Right of the leftmost cup, the right-hand one is bright'
    """
    return _SIDES.sub(_other, text)


def check_phrases(phrases: str | Sequence[str]) -> list[str]:
    """One phrase or several as a list, without the white space around them.

    Raises:
        InputError: there is no phrase, or one is no text, has no letter, digit or symbol, more than `MAX_PHRASE`
            characters, or a control character, a line break or a lone surrogate (what broken UTF-8 becomes in an
            argument).
    """
    one = isinstance(phrases, str | bytes) or not isinstance(phrases, Iterable)
    given: list[Any] = [phrases] if one else list(phrases)
    if not given:
        raise InputError("There is no phrase: say what to look for, such as 'a red mug'.")
    for phrase in given:
        if not isinstance(phrase, str):
            raise InputError(f"A phrase must be a text such as 'a red mug', not {type(phrase).__name__}.")
    checked = [phrase.strip() for phrase in given]
    for phrase in checked:
        kinds = {unicodedata.category(character) for character in phrase}
        if not any(kind[0] in "LNS" for kind in kinds):
            raise InputError(f"The phrase {phrase[:20]!a} names nothing: say what to look for, such as 'a red mug'.")
        if len(phrase) > MAX_PHRASE:
            raise InputError(f"The phrase {phrase[:20]!a}... has {len(phrase)} characters: {MAX_PHRASE} are the limit.")
        if kinds & {"Cc", "Cs", "Zl", "Zp"}:
            raise InputError(f"The phrase {phrase!a} holds a control character, line break or broken UTF-8: remove it.")
    return checked


def _other(found: re.Match[str]) -> str:
    if found.start() and found.string[found.start() - 1].isalnum():  # "bright" is no side
        return found.group()
    other = "right" if found.group().lower() == "left" else "left"
    if found.group().isupper():
        return other.upper()
    return other.capitalize() if found.group()[0].isupper() else other

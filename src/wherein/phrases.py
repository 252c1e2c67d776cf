"""From what a user types to the noun phrase a prompt needs."""

from __future__ import annotations

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

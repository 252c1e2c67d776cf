"""Words of a text that was written in tokens: which tokens make up which word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

WORD = re.compile(r"\w+(?:[-'’.]\w+)*")  # "don't", "t-shirt", "3.5": one word each; other punctuation is none
UNFINISHED = "\ufffd"  # what a tokenizer makes of bytes that do not end a character yet


class Word(NamedTuple):
    """A word: its text, where it is in the whole text (from, to), and the first and last of its tokens."""

    text: str
    start: int
    end: int
    first: int
    last: int


def words(tokenizer: Any, tokens: Sequence[int]) -> tuple[str, list[Word]]:
    """The text of tokens, and its words.

    >>> from types import SimpleNamespace
    >>> pieces = ["A", " gir", "affe", ",", " two"]
    >>> tokenizer = SimpleNamespace(decode=lambda ids, **_: "".join(pieces[i] for i in ids))
    >>> text, found = words(tokenizer, [0, 1, 2, 3, 4])
    >>> text, [(word.text, word.first, word.last) for word in found]
    ('A giraffe, two', [('A', 0, 0), ('giraffe', 1, 2), ('two', 4, 4)])
    """
    read = [_text(tokenizer, tokens[: i + 1]) for i in range(len(tokens))]
    begun, ended = [len(text) for text in read], [len(text.rstrip(UNFINISHED)) for text in read]
    text = _text(tokenizer, tokens)
    return text, [
        Word(found.group(), found.start(), found.end(), _at(begun, found.start() + 1), _at(ended, found.end()))
        for found in WORD.finditer(text)
    ]


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _at(lengths: Sequence[int], length: int) -> int:
    """The first token with which the text is at least this long."""
    return next((i for i, reached in enumerate(lengths) if reached >= length), len(lengths) - 1)

"""Boxes as text: codecs that write and read them, such as `[x0, y0, x1, y1]`, and the grammars of what they write."""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wherein.errors import InputError
from wherein.geometry import clip

_NUMBER = r"\s*(-?[0-9]+(?:\.[0-9]+)?)\s*"
BRACKET = ("[", ",", ",", ",", "]")
RANGES = ("from", " and", " to", " and", ".")
_SPACES = "\u0120\u2581"  # how byte-level and sentencepiece vocabularies write a space


class Grammar(Hashable, Protocol):
    """What a constrained answer may look like; it stays as it is, since what may follow a text is remembered."""

    @property
    def alphabet(self) -> frozenset[str]:
        """Every character that an answer can contain."""

    def prefix(self, text: str) -> bool:
        """True when, and only when, some continuation of `text` (or `text` itself) is a full answer."""

    def full(self, text: str) -> bool:
        """True when `text` is a full answer."""


def _numbers(found: re.Match[str] | None, beyond: int = 0) -> NDArray[np.float64] | None:
    """The four numbers found, `beyond` added to the far ones; None unless they are then in order."""
    if found is None:
        return None
    x0, y0, x1, y1 = box = np.array([float(number) for number in found.groups()]) + [0, 0, beyond, beyond]
    return box if np.isfinite(box).all() and x1 > x0 and y1 > y0 else None


@lru_cache(maxsize=64)
def _pattern(frame: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(_NUMBER.join(re.escape(text.strip()) for text in frame))


@dataclass(frozen=True)
class Codec:
    """One way to write a box of the model's picture as text, with bounded integers.

    Attributes:
        name: as in `CODECS`.
        unit: the number that stands for the whole side; None means that the numbers are model pixels.
        step: the numbers are the multiples of this.
        digits: numbers are padded with zeros to this many digits.
        frame: what stands before, between and behind the four numbers.
        inclusive: the numbers are those of strips between grid lines, and a far edge is named by the last strip inside:
            the whole picture is 0, 0, 9, 9 where `unit` is 10. Only for a `step` of 1.
    """

    name: str
    unit: int | None = None
    step: int = 1
    digits: int = 1
    frame: tuple[str, str, str, str, str] = ("[", ", ", ", ", ", ", "]")
    inclusive: bool = False

    def encode(self, box: ArrayLike, width: int, height: int) -> str:
        """The text for a box float64[4] in pixels of a `width` x `height` picture.

        The box is cut to the picture and its edges go to the nearest number, but never to the same one.

        Raises:
            InputError: the box has no area inside the picture.
        """
        x0, y0, x1, y1 = clip(np.asarray(box, dtype=np.float64)[None], width, height)[0]
        if not (x1 > x0 and y1 > y0):
            raise InputError(f"box {np.asarray(box).tolist()} has no area inside a picture of {width} x {height}")
        left, right = self._nearest(x0, x1, width)
        top, bottom = self._nearest(y0, y1, height)
        numbers = (left, top, right, bottom, "")
        return "".join(text + number for text, number in zip(self.frame, numbers, strict=True))

    def decode(self, text: str, width: int, height: int) -> NDArray[np.float64] | None:
        """The first box that `text` names, as float64[4] in pixels of a `width` x `height` picture.

        Spaces, decimals and negative numbers are read, and anything around the box is ignored. Edges outside are cut to
        the picture; None when there is no box, its corners are not in order, or none of it is inside.
        """
        written = _numbers(_pattern(self.frame).search(text), self.beyond)
        if written is None:
            return None
        sides = np.array([width, height, width, height])
        pixels = written if self.unit is None else written * sides / self.unit
        x0, y0, x1, y1 = box = clip(pixels[None], width, height)[0]
        return box if x1 > x0 and y1 > y0 else None

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end in `text` of each of the four numbers that `decode` reads; empty when there are none."""
        found = _pattern(self.frame).search(text)
        return [found.span(group) for group in range(1, 5)] if found else []

    def grammar(self, width: int, height: int, lead: str = "") -> "BoxGrammar":
        """The grammar of exactly the texts that `encode` can write for a `width` x `height` picture.

        `lead` is text that must come before the bracket, such as the space after a prompt.

        Raises:
            InputError: a side is not positive.
        """
        return _grammar(self, width, height, lead)

    def numbers(self, side: int) -> tuple[str, ...]:
        """Every number, ascending, that an edge along `side` pixels can be written as."""
        return tuple(self._write(place) for place in range(self._last(side) + 1 - self.beyond))

    @property
    def beyond(self) -> int:
        """How many steps behind its number a far edge lies: 1 where numbers are inclusive, else 0."""
        return int(self.inclusive)

    def _last(self, side: int) -> int:
        return (self.unit or side) // self.step

    def _write(self, place: int) -> str:
        return str(place * self.step).zfill(self.digits)

    def _nearest(self, low: float, high: float, side: int) -> tuple[str, str]:
        last = self._last(side)
        first, second = round(low / side * last), round(high / side * last)
        if first == second:  # smaller than a step: take the step that its middle lies in
            first = min(int((low + high) / 2 / side * last), last - 1)
            second = first + 1
        return self._write(first), self._write(second - self.beyond)


CODECS = {
    codec.name: codec
    for codec in (
        Codec("grid16", unit=224, step=14, frame=BRACKET),  # PIN as released: the lines of a 16 x 16 grid on 224 pixels
        Codec("pixels"),
        Codec("0-100", unit=100),
        Codec("0-1000", unit=1000),
        Codec("00-99", unit=99, digits=2, frame=BRACKET),
        # tenths of the picture; words around each number, so that a small model keeps its place
        Codec("ranges", unit=10, frame=RANGES, inclusive=True),
    )
}


class BoxGrammar:
    """Four numbers out of lists in a frame of fixed texts, x1 after x0 in its list and y1 after y0 in its own."""

    def __init__(
        self, xs: Sequence[str], ys: Sequence[str], frame: Sequence[str], lead: str = "", gap: int = 1
    ) -> None:
        """`xs` and `ys` are the numbers as digits, ascending, more than `gap` of each; `lead` comes before the frame.

        A far number comes at least `gap` places after the near one: 0 lets the two be the same.
        """
        self.alphabet = frozenset(lead + "".join([*frame, *xs, *ys]))
        self._opening = lead + frame[0]
        self._closings = tuple(frame[1:])
        self._axes, self._gap = (_Axis(xs), _Axis(ys)), gap

    def prefix(self, text: str) -> bool:
        """True when, and only when, some continuation of `text` (or `text` itself) is a full answer."""
        if not text.startswith(self._opening):
            return self._opening.startswith(text)
        rest = text[len(self._opening) :]
        places: list[int] = []
        for field, closing in enumerate(self._closings):
            axis = self._axes[field % 2]
            last = axis.count - 1
            lowest, highest = (0, last - self._gap) if field < 2 else (places[field - 2] + self._gap, last)
            after = rest.lstrip("0123456789")
            number = rest[: len(rest) - len(after)]
            if not after:
                return axis.begins(number, lowest, highest)
            places.append(axis.places.get(number, -1))
            if not lowest <= places[field] <= highest:
                return False
            if not after.startswith(closing):
                return closing.startswith(after)
            rest = after[len(closing) :]
        return not rest

    def full(self, text: str) -> bool:
        """True when `text` is a full answer."""
        return len(text) > len(self._opening) and text.endswith(self._closings[-1]) and self.prefix(text)


class _Axis:
    """The numbers that may be written along one side, and for each beginning of a number where those with it lie."""

    def __init__(self, numbers: Sequence[str]) -> None:
        self.count = len(numbers)
        self.places = {number: place for place, number in enumerate(numbers)}
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}
        for place, number in enumerate(numbers):
            for end in range(len(number) + 1):
                self._first.setdefault(number[:end], place)
                self._last[number[:end]] = place

    def begins(self, text: str, lowest: int, highest: int) -> bool:
        """True when a number in places `lowest`..`highest`, where one of the two is no limit, begins with `text`."""
        return text in self._first and self._first[text] <= highest and self._last[text] >= lowest


@lru_cache(maxsize=64)
def _grammar(codec: Codec, width: int, height: int, lead: str) -> BoxGrammar:
    if width < 1 or height < 1:
        raise InputError(f"a picture needs sides of at least 1 pixel, got {width} x {height}")
    return BoxGrammar(codec.numbers(width), codec.numbers(height), codec.frame, lead, gap=1 - codec.beyond)


class TokenConstraint:
    """Which tokens may come next so that the text of a language model follows a grammar."""

    def __init__(self, tokenizer: Any, grammar: Grammar) -> None:
        """`tokenizer` is one of transformers or a `tokenizers.Tokenizer`, byte-level or sentencepiece.

        Raises:
            InputError: the tokenizer lacks a token for a character of the grammar, so an answer could get stuck.
        """
        self.grammar = grammar
        self._pieces = _pieces(tokenizer, grammar.alphabet)
        missing = grammar.alphabet.difference(self._pieces.values())
        if missing:
            raise InputError(f"the tokenizer has no token of its own for {sorted(missing)}; use another box format")
        self._allowed = lru_cache(maxsize=1024)(self._fitting)
        self._forced = lru_cache(maxsize=1024)(self._only)

    def allowed(self, text: str) -> list[int]:
        """Ids of the tokens that may follow the answer `text`: never none while it is a prefix and not full."""
        return list(self._allowed(text))

    def piece(self, token: int) -> str:
        """What an allowed token adds to the answer."""
        return self._pieces[token]

    def spell(self, text: str) -> list[int]:
        """Ids of the longest tokens that, within an answer, add up to `text`, made of the grammar's characters.

        Unlike the tokenizer's own encoding, which may put a space before whatever it is given.
        """
        ids: list[int] = []
        while text:
            fitting = [token for token, piece in self._pieces.items() if text.startswith(piece)]
            ids.append(max(fitting, key=lambda token: len(self.piece(token))))
            text = text.removeprefix(self.piece(ids[-1]))
        return ids

    def forced(self, text: str) -> str:
        """The longest continuation of the answer `text` that is the only possible one; empty when there is a choice."""
        return self._forced(text)

    def _fitting(self, text: str) -> tuple[int, ...]:
        return tuple(token for token, piece in self._pieces.items() if self.grammar.prefix(text + piece))

    def _only(self, text: str) -> str:
        known = text
        while not self.grammar.full(known):
            possible = (character for character in self.grammar.alphabet if self.grammar.prefix(known + character))
            only = list(islice(possible, 2))
            if len(only) != 1:
                break
            known += only[0]
        return known[len(text) :]


@lru_cache(maxsize=8)  # reading a vocabulary takes a moment, and each size of picture has a grammar of its own
def _pieces(tokenizer: Any, alphabet: frozenset[str]) -> dict[int, str]:
    """Id and text of the tokens made of `alphabet` only, as they read in the middle of a text, by id."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    anchor = next((character for character in sorted(alphabet - {" "}) if character in vocabulary), "")
    # some decoders drop the space of the first token, so each is read behind another one
    read = getattr(tokenizer, "convert_tokens_to_string", None) or tokenizer.decoder.decode
    raw = alphabet.union(_SPACES)
    candidates = sorted((token, name) for name, token in vocabulary.items() if raw.issuperset(name))
    pieces = ((token, read([anchor, name]).removeprefix(anchor)) for token, name in candidates)
    return {token: piece for token, piece in pieces if piece and alphabet.issuperset(piece)}

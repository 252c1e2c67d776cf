"""What the built-in model was taught to say: no word about where anything is, or unlocking it would prove nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest

from wherein.synth import ObjectBank
from wherein.vlm.branches import Branch
from wherein.vlm.default import DefaultVLM

FORBIDDEN = re.compile(
    r"[\d\[\](){}<>%]|\b("
    r"box(es)?|bounding|point(s|ing)?|coordinates?|positions?|positioned|located|location|place[ds]?|where|region|area"
    r"|left|right|top|bottom|above|below|cent(er|re)d?|middle|corner|edge|side|upper|lower|up|down"
    r"|near|next|beside|behind|front|between|under|over|inside|outside|around|far|foreground|background"
    r"|north|south|east|west|row|column|pixels?|zero|one|two|three|half|first|second|third|last"
    r")\b"
)


@pytest.fixture(scope="module")
def captions(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("captions")


def encode(text: str) -> list[int]:
    """A tokenizer whose tokens are characters."""
    return [ord(character) for character in text]


def read(branch: Branch) -> str:
    return "".join(map(chr, branch.context + branch.target))


@pytest.fixture(scope="module")
def names() -> tuple[str, ...]:
    return ObjectBank.load().names


def colour_words(captions: ModuleType) -> list[str]:
    return [*dict.fromkeys(word for _, word in captions.HUES), "brown", "black", "white", "grey"]


def sentences(captions: ModuleType, names: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every form of sentence with every name, and the names in it."""
    for name in names:
        yield read(captions.caption(encode, [name], 10)), (name,)
        for present in (True, False):
            yield read(captions.presence(encode, name, present)), (name,)
        yield read(captions.refusal(encode, DefaultVLM.locate_prompt, name)), (name,)
        for word in colour_words(captions):
            yield read(captions.attribute(encode, name, word)), (name,)
    for a, b in pairwise(names):
        yield read(captions.caption(encode, [a, b], 10)), (a, b)
        yield read(captions.caption(encode, [a, b, names[0]], 10)), (a, b, names[0])


def test_no_sentence_says_where(captions: ModuleType, names: tuple[str, ...]) -> None:
    """The names themselves are taken out first: "top hat", "tank top" and "juice box" are things, and say nothing about
    where one lies. What is left of a sentence is the words of ours."""
    count = 0
    for sentence, named in sentences(captions, names):
        rest = sentence.lower()
        for name in named:
            rest = re.sub(rf"\b(an?) {re.escape(name)}(?=[,.: ])", r"\1 thing", rest, count=1)
            assert "thing" in rest
        assert not FORBIDDEN.search(rest), sentence
        count += 1
    assert count > 10 * len(names)


def test_few_names_hold_such_a_word_and_all_are_things(names: tuple[str, ...]) -> None:
    """Whoever adds a name that does has to look at it here."""
    heads = {name.split()[-1] for name in names if FORBIDDEN.search(name)}
    assert heads <= {"box", "jack-in-the-box", "top", "hat"}


def test_the_prompts_of_captions_say_nothing_either() -> None:
    assert not FORBIDDEN.search(DefaultVLM.shared_prompt + DefaultVLM.caption_prompt)


def test_sentences_as_documented(captions: ModuleType) -> None:
    assert read(captions.caption(encode, ["camel", "duck", "apple"], 10)) == " a camel, a duck and an apple.\n"
    assert read(captions.caption(encode, ["owl"], 10)) == " an owl.\n"
    assert read(captions.attribute(encode, "camel", "brown")) == " a camel that is brown."
    assert read(captions.presence(encode, "unicorn", False)) == " an unicorn: no."  # by the first letter, as in prompts
    assert read(captions.presence(encode, "duck", True)) == " a duck: yes."
    assert read(captions.refusal(encode, DefaultVLM.locate_prompt, "camel")) == " a camel ranges not"


def test_only_answers_are_learnt(captions: ModuleType) -> None:
    """What is asked about is context; a caption is learnt from its first word on."""
    assert "".join(map(chr, captions.attribute(encode, "camel", "brown").target)) == " brown."
    assert "".join(map(chr, captions.presence(encode, "unicorn", False).target)) == " no."
    branch = captions.caption(lambda text: [1, 2, 3], ["camel"], 9)
    assert (branch.context, branch.target) == ((), (1, 2, 3, 9))


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((255, 0, 0), "red"),
        ((200, 20, 40), "red"),
        ((255, 140, 0), "orange"),
        ((255, 230, 0), "yellow"),
        ((0, 160, 60), "green"),
        ((30, 90, 220), "blue"),
        ((130, 50, 200), "purple"),
        ((255, 105, 180), "pink"),
        ((120, 70, 20), "brown"),
        ((10, 10, 10), "black"),
        ((128, 128, 130), "grey"),
        ((250, 250, 250), "white"),
    ],
)
def test_colours_of_swatches(captions: ModuleType, rgb: tuple[int, int, int], word: str) -> None:
    assert captions.colour(swatch(rgb)) == word


def swatch(*colours: tuple[int, int, int]) -> np.ndarray:
    """uint8[40, 40 a colour, 4]: opaque patches side by side."""
    return np.concatenate([np.full((40, 40, 4), (*rgb, 255), np.uint8) for rgb in colours], axis=1)


def test_a_colour_has_to_dominate(captions: ModuleType) -> None:
    red, green, blue = (255, 0, 0), (0, 160, 60), (30, 90, 220)
    assert captions.colour(swatch(red, green, blue)) is None
    assert captions.colour(swatch(red, red, blue)) == "red"


def test_what_is_transparent_has_no_colour(captions: ModuleType) -> None:
    cutout = swatch((255, 0, 0), (30, 90, 220))
    cutout[:, 40:, 3] = 0
    assert captions.colour(cutout) == "red"
    cutout[..., 3] = 0
    assert captions.colour(cutout) is None

"""Captions as pictures and as JSON: colours along the sentence, words of nothing left plain, places drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageColor

from wherein.methods.pixel.captions import Caption, PlacedWord, Region
from wherein.methods.pixel.picture import _gradient, draw_regions, draw_trace
from wherein.methods.pixel.words import WORD

GREY = np.full((300, 600, 3), 128, np.uint8)
BOX = np.array([50.0, 50, 250, 250])


def caption(text: str, places: dict[str, list[float]], boxes: bool = True) -> Caption:
    """Each word at its place x0, y0, x1, y1; those without one are said to be in the lower right corner."""
    words = []
    for found in WORD.finditer(text):
        box = np.array(places.get(found.group(), [590.0, 290, 598, 298]))
        point = (box[:2] + box[2:]) / 2
        words.append(PlacedWord(found.group(), found.start(), found.end(), point, box if boxes else None))
    return Caption(text, words, 0.5, True)


def said() -> Caption:
    return caption("a cup and a spoon.", {"cup": [20, 20, 100, 100], "spoon": [400, 40, 500, 200]})


def has(pixels: NDArray[np.uint8], colour: str) -> NDArray[np.bool_]:
    """bool[H, W]: which pixels have exactly this colour."""
    return np.asarray((pixels == ImageColor.getrgb(colour)[:3]).all(-1))


def test_words_that_speak_of_something_have_a_colour_in_picture_and_sentence() -> None:
    drawn = draw_trace(GREY, said())
    assert drawn.shape[1] == 600 and drawn.shape[0] > 300
    picture, sentence = drawn[:300], drawn[300:]
    first, last = _gradient(2)
    for colour, (x, y) in ((first, (60, 60)), (last, (450, 120))):
        assert has(picture, colour)[y - 1 : y + 2, x - 1 : x + 2].all()  # its dot
        assert has(sentence, colour).sum() > 100
    left, right = (np.flatnonzero(has(sentence, colour).any(0)) for colour in (first, last))
    assert left.max() < right.min()  # along the sentence
    corner = picture[270:, 560:]  # where "a" and "and" were said to be
    assert (corner == 128).all()


def test_without_boxes_points_are_drawn() -> None:
    plain, boxed = (draw_trace(GREY, caption("a cup.", {"cup": [20, 20, 100, 100]}, boxes)) for boxes in (False, True))
    colour = _gradient(1)[0]
    assert has(plain, colour)[60, 60] and has(boxed[:300], colour).sum() > has(plain[:300], colour).sum()


def test_a_small_image_is_shown_larger_and_a_long_sentence_takes_lines() -> None:
    small = np.full((60, 80, 3), 128, np.uint8)
    short, long = (draw_trace(small, caption(text, {})) for text in ("a cup.", "then a cup " * 20))
    assert short.shape[1] == long.shape[1] == 480 and long.shape[0] > short.shape[0] + 60
    assert (long[:, -2:][370:] == 255).all()  # no word runs over the edge
    assert draw_trace(small, caption("", {})).shape[1] == 480  # nothing said


def test_regions_have_their_captions_and_points_a_square() -> None:
    box = Region(said(), box=BOX, proposal_score=0.9)
    point = Region(caption("a spoon", {}), point=np.array([450.0, 150.0]))
    drawn = draw_regions(GREY, [box, point])
    changed = (drawn != 128).any(-1)
    assert drawn.shape == GREY.shape and changed[150, 50] and changed[150, 250] and not changed[150, 150]
    assert changed[100:200, 400:500].any() and not changed[150, 450]
    assert (draw_regions(GREY, []) == GREY).all()


def test_a_picture_says_what_its_scores_are(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("wherein.methods.pixel.picture.draw", lambda image, groundings: drawn.extend(groundings))
    draw_regions(GREY, [Region(said(), box=BOX, proposal_score=0.9), Region(said(), box=BOX)])
    assert [(one.scores.tolist(), one.score_kind) for one in drawn] == [
        ([0.9], "proposal_score"),
        ([0.5], "caption_probability"),
    ]


def test_json() -> None:
    cup = said()
    assert cup.to_dict()["words"][1] == {
        "word": "cup",
        "start": 2,
        "end": 5,
        "point": [60, 60],
        "box": [20, 20, 100, 100],
    }
    assert [word.text for word in cup.trace] == ["cup", "spoon"]
    region = Region(cup, point=np.array([3.0, 4.0]))
    assert (region.to_dict()["point"], region.to_dict()["box"], region.score) == ([3, 4], None, 0.5)
    found = Region(cup, box=np.zeros(4), proposal_score=0.7)
    assert (region.score_kind, found.score, found.score_kind) == ("caption_probability", 0.7, "proposal_score")
    assert found.to_dict()["score"] == 0.5 and found.to_dict()["score_kind"] == "caption_probability"
    with pytest.raises(ValueError, match="exactly one"):
        Region(cup)

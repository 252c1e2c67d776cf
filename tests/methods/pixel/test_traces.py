"""Narratives as targets: which word was said where."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherein.methods.pixel import traces

# The mouse goes right along y = 0.25 for four seconds, then down along x = 0.8 for four.
RIGHT = [[0.1, 0.25, 0.0], [0.9, 0.25, 4.0]]
DOWN = [[0.8, 0.2, 5.0], [0.8, 1.2, 9.0]]
SPANS = [("A red cat", 0.0, 2.0), ("and a dog.", 2.0, 4.0), ("", 4.0, 5.0), ("A wooden chair", 5.0, 9.0)]


def made() -> traces.Traced:
    traced = traces.trace([DOWN, RIGHT], SPANS)  # strokes in any order
    assert traced is not None
    return traced


def test_pl_4_boxes_of_utterances() -> None:
    traced = made()
    np.testing.assert_allclose(traced.boxes[0], [0.1, 0.25, 0.5, 0.25])
    np.testing.assert_allclose(traced.boxes[1], [0.5, 0.25, 0.9, 0.25])
    np.testing.assert_allclose(traced.boxes[3], [0.8, 0.2, 0.8, 1.2], atol=1e-9)
    np.testing.assert_allclose(traced.centres[[0, 3]], [[0.3, 0.25], [0.8, 0.7]])
    assert traced.valid.tolist() == [True, True, False, True]


def test_pl_4_cut_to_the_picture_and_in_whole_pixels() -> None:
    boxes = traces.pixels(made().boxes, 300, 200)
    assert boxes[0].tolist() == [30, 50, 150, 50] and boxes[3].tolist() == [240, 40, 240, 200]
    wide = traces.pixels(made().boxes, 600, 200)
    assert np.array_equal(wide[:, 1::2], boxes[:, 1::2]) and np.abs(wide[:, ::2] - 2 * boxes[:, ::2]).max() <= 1


def test_pl_4_beyond_the_strokes() -> None:
    """Before the first point and after the last the mouse goes on as it went."""
    traced = traces.trace([RIGHT], [("early", -1.0, 0.0), ("a moment", 2.0, 2.0)])
    assert traced is not None
    np.testing.assert_allclose(traced.boxes[0], [-0.1, 0.25, 0.1, 0.25])
    assert traced.valid.tolist() == [False, True]  # its middle is no place of the image
    np.testing.assert_allclose(traced.centres[1], [0.5, 0.25])


@pytest.mark.parametrize("strokes", [[], [[]], [[[0.1, 0.2, 0.0]]], [[[0.1, 0.2, 1.0], [0.5, 0.2, 1.0]]]])
def test_no_path(strokes: list[list[list[float]]]) -> None:
    assert traces.trace(strokes, SPANS) is None


def test_pl_4_each_word_has_its_utterance() -> None:
    words = ["A", "red", "cat", "and", "a", "dog", ".", "A", "wooden", "chair"]
    assert traces.by_words(words, SPANS, made().valid).tolist() == [0, 0, 0, 1, 1, 1, -1, 3, 3, 3]


def test_words_that_differ() -> None:
    """A typing error, a word left out, one put in: the rest stays where it was, which the ratio rule does not."""
    words = ["A", "redd", "cat", "sleeping", "on", "it", "and", "dog", "a", "wooden", "chair"]
    found = traces.by_words(words, SPANS, made().valid).tolist()
    assert found == [0, 0, 0, -1, -1, -1, 1, 1, 3, 3, 3]
    assert traces.by_ratio(len(words), made().valid).tolist() != found


def test_words_of_an_utterance_without_a_trace() -> None:
    valid = np.array([True, False, False, True])
    words = ["A", "red", "cat", "and", "a", "dog", "A", "wooden", "chair"]
    assert traces.by_words(words, SPANS, valid).tolist() == [0, 0, 0, -1, -1, -1, 3, 3, 3]


def test_another_text_falls_back_to_the_ratio() -> None:
    words = ["ein", "rotes", "Tier", "liegt", "dort", "ganz"]
    assert traces.by_words(words, SPANS, made().valid).tolist() == traces.by_ratio(6, made().valid).tolist()


@pytest.mark.parametrize(
    ("count", "valid", "found"),
    [
        (4, [True, True, True, True], [0, 1, 2, 3]),
        (8, [True, True], [0, 0, 0, 0, 1, 1, 1, 1]),
        (4, [True, False, False, True], [0, 0, 3, 3]),
        (3, [False, False], [-1, -1, -1]),
        (0, [True], []),
        (1, [True, True], [0]),
    ],
)
def test_by_ratio(count: int, valid: list[bool], found: list[int]) -> None:
    assert traces.by_ratio(count, np.array(valid)).tolist() == found


@given(st.lists(st.sampled_from(["red", "cat", "dog", "chair", "sits", "old"]), min_size=1, max_size=12), st.data())
def test_words_as_they_were_said(words: list[str], data: st.DataObject) -> None:
    """However a text is cut into utterances, its own words find them again."""
    cuts = sorted(data.draw(st.sets(st.integers(1, len(words)), max_size=4)) | {len(words)})
    spans, start = [], 0
    for cut in cuts:
        spans.append((" ".join(words[start:cut]), 0.0, 1.0))
        start = cut
    wanted = [i for i, (text, _, _) in enumerate(spans) for _ in text.split()]
    assert traces.by_words(words, spans, np.ones(len(spans), bool)).tolist() == wanted

"""A method with a segmenter behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wherein.errors import InputError
from wherein.grounding import Grounding
from wherein.segment import Refined, Segmenter
from wherein.segment.segmenter import PROMPTS

HEAT = np.arange(12, dtype=np.float32).reshape(3, 4)
FOUND = Grounding(
    "a cat",
    np.array([[10.0, 5.0, 60.0, 30.0], [30.0, 0.0, 90.0, 40.0]]),
    np.array([0.9, 0.4]),
    "attention",
    False,
    0.1,
    answer="[10,05,60,30]",
    expected_box=np.array([11.0, 6.0, 59.0, 29.0]),
    heatmap=HEAT,
)
ABSENT = Grounding("a dog", np.empty((0, 4)), np.empty(0), "attention", True, 0.8, heatmap=HEAT)
INVALID = Grounding("a hat", np.empty((0, 4)), np.empty(0), "attention", False, None, answer="[1")
DOUBTED = Grounding("a cow", np.array([[1.0, 2.0, 3.0, 4.0]]), np.ones(1), "attention", True, 0.6)


class Stub:
    """A method that has its answers."""

    name, score_kind, finds_every, gives = "stub", "none", True, frozenset({"heatmap"})

    def __init__(self, *answers: Grounding) -> None:
        self.answers, self.calls = list(answers), []  # type: tuple[list[Grounding], list[Any]]

    def ground(
        self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True, every: bool = False
    ) -> list[Grounding]:
        self.calls.append((image.shape, list(phrases), absent))
        return self.answers


class Painter:
    """A segmenter that paints the masks it was made with."""

    kind = "sam"

    def __init__(self, *masks: NDArray[np.bool_]) -> None:
        self.painted, self.asked = np.stack(masks), []  # type: tuple[NDArray[np.bool_], list[Any]]

    def encode(self, image: NDArray[np.uint8]) -> Any:
        return image.shape

    def decode(self, encoded: Any, boxes: Any, heat: Any, prompt: str) -> Any:
        self.asked.append((encoded, boxes, heat, prompt))
        return self.painted, np.ones(len(self.painted))


def painted(x0: int, y0: int, x1: int, y1: int) -> NDArray[np.bool_]:
    mask = np.zeros((40, 100), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def refined(method: Any, segmenter: Any, prompt: str = "box") -> Refined:
    return Refined(method, segmenter, prompt)


def test_boxes_are_tight_and_the_mask_is_their_union(picture: NDArray[np.uint8]) -> None:
    one, two = painted(12, 6, 50, 25), painted(40, 3, 41, 30) | painted(70, 9, 80, 10)
    painter, stub = Painter(one, two), Stub(FOUND)
    (found,) = refined(stub, painter, "box+mask").ground(picture, ["a cat"], absent=False)
    assert found.boxes.tolist() == [[12, 6, 50, 25], [40, 3, 80, 30]] and found.boxes.dtype == np.float64
    assert found.mask is not None and np.array_equal(found.mask, one | two)
    assert stub.calls == [((40, 100, 3), ["a cat"], False)]
    ((encoded, boxes, heat, prompt),) = painter.asked
    assert encoded == (40, 100, 3) and boxes is FOUND.boxes and heat is HEAT and prompt == "box+mask"


def test_all_else_is_the_methods_own(picture: NDArray[np.uint8]) -> None:
    (found,) = refined(Stub(FOUND), Painter(painted(1, 1, 2, 2), painted(1, 1, 2, 2))).ground(picture, ["a cat"])
    for name in ("phrase", "score_kind", "absent", "absent_probability", "answer"):
        assert getattr(found, name) == getattr(FOUND, name)
    for name in ("scores", "expected_box", "heatmap"):
        assert np.array_equal(getattr(found, name), getattr(FOUND, name))
    assert FOUND.mask is None and FOUND.boxes[0].tolist() == [10, 5, 60, 30]  # the method's answer itself is untouched


def test_a_box_without_a_mask_stays(picture: NDArray[np.uint8]) -> None:
    empty = painted(0, 0, 0, 0)
    (found,) = refined(Stub(FOUND), Painter(empty, painted(33, 4, 80, 39))).ground(picture, ["a cat"])
    assert found.boxes.tolist() == [[10, 5, 60, 30], [33, 4, 80, 39]]
    (found,) = refined(Stub(FOUND), Painter(empty, empty)).ground(picture, ["a cat"])
    assert found.boxes.tolist() == FOUND.boxes.tolist()
    assert found.mask is not None and found.mask.shape == (40, 100) and not found.mask.any()


def test_absent_and_invalid_pass(picture: NDArray[np.uint8]) -> None:
    painter = Painter(painted(1, 2, 3, 4), painted(1, 2, 3, 4))
    answers = refined(Stub(ABSENT, FOUND, INVALID, DOUBTED), painter).ground(picture, ["a", "b", "c", "d"])
    assert answers[0] is ABSENT and answers[2] is INVALID and answers[3] is DOUBTED
    assert answers[1].boxes[0].tolist() == [1, 2, 3, 4] and len(painter.asked) == 1


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_encoder_runs_once_for_all_phrases(segmenter: Segmenter, picture: NDArray[np.uint8], prompt: str) -> None:
    runs: list[int] = []
    hook = segmenter.model.vision_encoder.register_forward_pre_hook(lambda _, given: runs.append(len(given[0])))
    try:
        answers = refined(Stub(FOUND, ABSENT, FOUND), segmenter, prompt).ground(picture, ["a", "b", "c"])
        assert runs == [1]
        refined(Stub(ABSENT, INVALID), segmenter, prompt).ground(picture, ["a", "b"])
        assert runs == [1]
    finally:
        hook.remove()
    expected, _ = segmenter.masks(picture, FOUND.boxes, HEAT, prompt)
    for found in (answers[0], answers[2]):
        assert found.mask is not None and np.array_equal(found.mask, expected.any(axis=0)) and found.mask.any()


def test_the_name(segmenters: Callable[[str], Segmenter]) -> None:
    assert refined(Stub(), segmenters("sam")).name == "stub+sam"
    assert refined(Stub(), segmenters("sam2_video"), "box+points").name == "stub+sam2[box+points]"


def test_what_cannot_be_asked_is_one_sentence(
    segmenters: Callable[[str], Segmenter], picture: NDArray[np.uint8]
) -> None:
    segmenter = segmenters("sam")
    with pytest.raises(InputError, match=r"'sketch'.*box, box\+points, box\+mask"):
        refined(Stub(), segmenter, "sketch")
    blind = Grounding("a cat", FOUND.boxes, FOUND.scores, "token", False, None)
    with pytest.raises(InputError, match="needs a heat map"):
        refined(Stub(blind), segmenter, "box+points").ground(picture, ["a cat"])

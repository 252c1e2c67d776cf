"""Pictures cropped and mirrored: everything that is said of them stays true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wherein.methods.pixel.scenes import Scene


def scene() -> Scene:
    """Three objects of 10 x 10 pixels, each drawn in its own colour, in a picture of 60 x 30."""
    image, masks = np.zeros((30, 60, 3), np.uint8), np.zeros((3, 30, 60), bool)
    boxes = np.array([[2, 3, 12, 13], [25, 10, 35, 20], [48, 18, 58, 28]], np.float64)
    for i, (x0, y0, x1, y1) in enumerate(boxes.astype(int)):
        image[y0:y1, x0:x1], masks[i, y0:y1, x0:x1] = 50 * (i + 1), True
    phrases = ("the left one", "the middle one", "the right one")
    return Scene(image, phrases, tuple(f"where is {phrase}" for phrase in phrases), boxes, masks)


def is_true(made: Scene) -> None:
    """Each box and mask is where its colour is, and each question asks for its phrase."""
    assert made.masks is not None
    for phrase, question, box, mask in zip(made.phrases, made.questions, made.boxes, made.masks, strict=True):
        x0, y0, x1, y1 = box.astype(int)
        assert mask[y0:y1, x0:x1].all() and mask.sum() == (x1 - x0) * (y1 - y0)
        assert len(np.unique(made.image[mask])) == 1 and made.image[mask].min() > 0
        assert question == f"where is {phrase}"


@pytest.mark.parametrize(
    ("window", "left"), [((0, 0, 60, 30), [0, 1, 2]), ((20, 5, 40, 25), [1, 2]), ((28, 0, 25, 30), [1, 2])]
)
def test_pl_7_a_crop_keeps_all_of_it_together(window: tuple[int, int, int, int], left: list[int]) -> None:
    """Also the questions for the encoder, which the released code forgot (bug P-2)."""
    whole, made = scene(), scene().crop(*window)
    assert made.phrases == tuple(whole.phrases[i] for i in left)
    assert made.questions == tuple(whole.questions[i] for i in left)
    colours = [int(made.image[mask].min()) for mask in made.masks] if made.masks is not None else []
    assert colours == [50 * (i + 1) for i in left]
    is_true(made)


def test_a_crop_with_nothing_in_it() -> None:
    made = scene().crop(13, 0, 10, 8)
    assert (made.phrases, made.questions, made.boxes.shape) == ((), (), (0, 4))
    assert made.masks is not None and made.masks.shape == (0, 8, 10)


def test_what_is_not_said_any_more_is_still_there() -> None:
    """For whoever learns where things are: no box that a crop holds some of is lost, and all others are."""
    some = scene()
    other = np.array([[22.0, 0, 32, 4], [0, 20, 5, 30]])
    made = replace(some, others=other).crop(9, 0, 30, 30)  # a third of the first object, all of the second
    assert made.phrases == ("the middle one",)
    assert made.others.tolist() == [[13, 0, 23, 4], [0, 3, 3, 13]]
    assert made.mirror().others.tolist() == [[7, 0, 17, 4], [27, 3, 30, 13]]
    assert some.crop(0, 0, 60, 30).others.shape == (0, 4)


def test_a_mirrored_picture_says_so() -> None:
    """Bug P-3: the right one is now the left one."""
    made = scene().mirror()
    assert made.phrases == ("the right one", "the middle one", "the left one")
    is_true(made)
    assert made.boxes[0].tolist() == [48, 3, 58, 13]
    again = made.mirror()
    assert again.phrases == scene().phrases and np.array_equal(again.boxes, scene().boxes)
    assert np.array_equal(again.image, scene().image)


def test_a_scene_that_does_not_agree() -> None:
    with pytest.raises(ValueError, match="one phrase"):
        Scene(np.zeros((4, 4, 3), np.uint8), ("a",), ("a", "b"), np.zeros((1, 4)))

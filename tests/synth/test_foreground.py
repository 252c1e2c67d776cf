"""Foreground masks and what is cut out with them."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from wherein.errors import InputError
from wherein.synth.clip import Clip
from wherein.synth.cutting import Cut, Cutter, cropped, largest
from wherein.synth.foreground import ClipSeg, parse

Mask = NDArray[np.bool_]
Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def tiny_objects() -> SimpleNamespace:
    """What makes tiny checkpoints; pytest's importlib mode has no packages of tests."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "tiny_objects.py")))


@pytest.fixture(scope="module")
def clip(tiny_objects: Any, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return Clip(str(tiny_objects.clip(tmp_path_factory.mktemp("clip"))), "cpu")


@pytest.fixture(scope="module")
def clipseg(tiny_objects: Any, tmp_path_factory: pytest.TempPathFactory) -> ClipSeg:
    return ClipSeg(str(tiny_objects.clipseg(tmp_path_factory.mktemp("clipseg"))), "cpu")


@pytest.fixture
def picture() -> Picture:
    """uint8[40, 100, 3]: not square."""
    y, x = np.mgrid[:40, :100]
    channels = [128 + 100 * np.sin(x / 9), 128 + 100 * np.cos(y / 5), 2 * x + y]
    return np.stack(channels, axis=-1).astype(np.uint8)


class Fixed:
    """A finder of one rectangle, or a refiner that notes the boxes it is given."""

    def __init__(self, *rectangle: int) -> None:
        self.rectangle = rectangle
        self.boxes: list[list[float]] = []

    def mask(self, picture: Picture, name: str) -> Mask:
        mask = np.zeros(picture.shape[:2], np.bool_)
        x0, y0, x1, y1 = self.rectangle
        mask[y0:y1, x0:x1] = True
        return mask

    def masks(self, image: Picture, boxes: NDArray[np.float64]) -> tuple[Mask, NDArray[np.float64]]:
        self.boxes += boxes.tolist()
        return self.mask(image, "")[None], np.ones(1)


def clip_that(likes: Callable[[Picture], float]) -> Any:
    def scores(pictures: Sequence[Picture], texts: Sequence[str]) -> NDArray[np.float64]:
        assert texts == ["a photo of lamp"]
        return np.array([[likes(picture)] for picture in pictures])

    return SimpleNamespace(scores=scores)


def slow_largest(mask: Mask) -> int:
    """Pixels of the largest piece, by flood fill."""
    left, best = {tuple(place) for place in np.argwhere(mask).tolist()}, 0
    while left:
        piece = [left.pop()]
        for row, column in piece:
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            piece += near
        best = max(best, len(piece))
    return best


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_the_largest_piece_is_what_flood_fill_finds(mask: Mask) -> None:
    piece = largest(mask)
    assert piece.sum() == slow_largest(mask) == slow_largest(piece)
    assert not (piece & ~mask).any()


def test_a_cutout_is_tight_keeps_its_holes_and_its_colours(picture: Picture) -> None:
    mask = np.zeros((40, 100), np.bool_)
    mask[5:30, 20:70] = True
    mask[10:20, 30:40] = False  # the handle of a mug
    mask[35:38, 80:95] = True  # something else
    finder = SimpleNamespace(mask=lambda *_: mask)
    found = Cutter({"one": finder}).cut(picture, "lamp")
    assert isinstance(found, Cut) and found.rgba.shape == (25, 50, 4)
    np.testing.assert_array_equal(found.rgba[..., :3], picture[5:30, 20:70])
    np.testing.assert_array_equal(found.rgba[..., 3] == 255, mask[5:30, 20:70])
    assert found.area == (25 * 50 - 100) / 4000 and found.score is None and found.segmenter == "one"


@given(hnp.arrays(np.uint8, (7, 6, 4)))
def test_cropping_keeps_every_solid_pixel(rgba: Picture) -> None:
    solid = rgba[..., 3] >= 128
    if solid.any():
        kept = cropped(rgba)[..., 3] >= 128
        assert kept.sum() == solid.sum()
        assert kept[0].any() and kept[-1].any() and kept[:, 0].any() and kept[:, -1].any()


def test_clip_chooses_among_the_masks_on_white(picture: Picture) -> None:
    finders = {"left": Fixed(0, 0, 50, 40), "right": Fixed(50, 0, 100, 40)}
    for side, wanted in (("left", slice(0, 50)), ("right", slice(50, 100))):
        shows = clip_that(lambda shown, wanted=wanted: float((shown[:, wanted] == picture[:, wanted]).mean()))
        found = Cutter(finders, clip=shows).cut(picture, "lamp")
        assert isinstance(found, Cut) and found.segmenter == side and found.score == 1.0
    white = clip_that(lambda shown: float((shown == 255).all(axis=2).mean()))
    found = Cutter({"small": Fixed(0, 0, 25, 40)}, clip=white).cut(picture, "lamp")
    assert isinstance(found, Cut) and found.score == pytest.approx(0.75, abs=0.01)


def test_a_mask_of_the_whole_picture_is_no_candidate(picture: Picture) -> None:
    prefers_all = clip_that(lambda shown: float((shown != 255).mean()))
    cutter = Cutter({"all": Fixed(0, 0, 100, 40), "half": Fixed(0, 0, 50, 40)}, clip=prefers_all)
    found = cutter.cut(picture, "lamp")
    assert isinstance(found, Cut) and found.segmenter == "half"


def test_why_there_is_no_cutout(picture: Picture) -> None:
    assert Cutter({"none": Fixed(0, 0, 0, 0)}).cut(picture, "lamp") == "no foreground"
    assert Cutter({"speck": Fixed(0, 0, 5, 5)}).cut(picture, "lamp") == "area"
    assert isinstance(Cutter({"speck": Fixed(0, 0, 5, 5)}, min_area=0.001).cut(picture, "lamp"), Cut)


def test_a_refiner_is_asked_with_the_box_of_what_a_finder_found(picture: Picture) -> None:
    refiner = Fixed(12, 12, 48, 28)
    smaller = clip_that(lambda shown: float((shown == 255).mean()))
    cutter = Cutter({"clipseg=a": Fixed(10, 10, 50, 30)}, {"sam=b": refiner}, clip=smaller)
    found = cutter.cut(picture, "lamp")
    assert refiner.boxes == [[10, 10, 50, 30]]
    assert isinstance(found, Cut) and found.segmenter == "clipseg=a + sam=b" and found.rgba.shape == (16, 36, 4)
    assert Cutter({"none": Fixed(0, 0, 0, 0)}, {"sam=b": refiner}).cut(picture, "lamp") == "no foreground"
    assert len(refiner.boxes) == 1


def test_clipseg_is_the_models_own_answer(clipseg: ClipSeg, picture: Picture) -> None:
    """Equality with the steps one by one, in the order of the model's documentation."""
    small = np.asarray(Image.fromarray(picture).resize((30, 30), Image.Resampling.BILINEAR), np.float32) / 255
    pixels = torch.from_numpy((small - 0.5) / 0.5).permute(2, 0, 1)[None]
    ids = clipseg._tokenizer("a photo of tea pot", return_tensors="pt").input_ids
    with torch.inference_mode():
        logits = clipseg.model(pixel_values=pixels, input_ids=ids).logits.reshape(1, 1, 30, 30)
        full = torch.nn.functional.interpolate(logits, (40, 100), mode="bilinear", align_corners=False)[0, 0]
    certain = (full - np.log(128 / 127)).abs() > 1e-4
    mask = clipseg.mask(picture, "tea pot")
    assert mask.shape == (40, 100) and 0.05 < mask.mean() < 0.95
    np.testing.assert_array_equal(mask[certain], (full > np.log(128 / 127)).numpy()[certain])


def test_clip_scores_are_cosines(clip: Clip, picture: Picture) -> None:
    """Against the whole model in one call, two pictures of different shapes and two texts."""
    texts = ["a photo of a lamp", "a photo of an anvil, red"]
    pictures = [picture, picture.transpose(1, 0, 2)[::-1]]
    inputs = clip._images([Image.fromarray(np.ascontiguousarray(p)) for p in pictures], return_tensors="pt")
    words = clip._tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        whole = clip.model(**inputs, **words)
    cosines = torch.nn.functional.cosine_similarity(whole.image_embeds[:, None], whole.text_embeds[None], dim=-1)
    scores = clip.scores([np.ascontiguousarray(p) for p in pictures], texts)
    assert scores.shape == (2, 2) and np.ptp(scores) > 0.01
    np.testing.assert_allclose(scores, 100 * cosines.numpy(), atol=1e-4)


def test_what_is_no_segmenter_is_one_sentence(tiny_objects: Any, tmp_path: Path) -> None:
    assert parse(["sam=a/b", "clipseg=c"]) == [("sam", "a/b"), ("clipseg", "c")]
    for given_, sentence in ((["u3net=x"], "KIND=MODEL"), (["clipseg"], "KIND=MODEL"), (["sam=x"], "clipseg=MODEL")):
        with pytest.raises(InputError, match=sentence):
            parse(given_)
    folder = str(tiny_objects.clip(tmp_path))
    with pytest.raises(InputError, match="no CLIPSeg"):
        ClipSeg(folder, "cpu")
    with pytest.raises(InputError, match="Hub does not give it"):
        Clip("nobody/nothing", "cpu")


def test_a_clipseg_is_no_clip_and_pickled_weights_are_not_read(tiny_objects: Any, tmp_path: Path) -> None:
    folder = tiny_objects.clipseg(tmp_path)
    with pytest.raises(InputError, match="no CLIP:"):
        Clip(str(folder), "cpu")
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="Cannot read the weights"):
        ClipSeg(str(folder), "cpu")

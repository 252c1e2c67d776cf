"""Where a map lies in the image: padding, crops, tiles (SPEC 2.8: LH-10, bug L-3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wherein.errors import InputError
from wherein.geometry import Frame
from wherein.methods.heads.canvas import Canvas
from wherein.vlm.base import ImageTokens

GRID = (24, 24)


class Shown:
    """A model of which only the geometry is asked."""

    name, latents = "shown", False

    def __init__(self, tokens: ImageTokens) -> None:
        self.tokens = tokens

    def image_tokens(self, frame: Frame) -> ImageTokens:
        return self.tokens


def letterboxed(width: int, height: int) -> Canvas:
    """LLaVA's: a square with the image in the middle, 24 x 24 tokens."""
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    frame = Frame.identity(width, height).pad(left, top, side - width - left, side - height - top).resize(336, 336)
    return Canvas(Shown(ImageTokens.raster(frame, GRID)), frame)  # type: ignore[arg-type]


def box_of(cells: NDArray[np.bool_]) -> NDArray[np.float64]:
    rows, columns = np.nonzero(cells)
    return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float64)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640)])
def test_a_rectangle_drawn_as_attention_comes_back_within_a_cell(width: int, height: int) -> None:
    """LH-10: L-3 would shift and stretch it."""
    canvas = letterboxed(width, height)
    box = np.array([150.0, 170.0, 390.0, 330.0])
    rows = canvas.inside(box).astype(np.float32).ravel()
    laid = canvas.lay(rows[None])[0]
    assert laid.shape == GRID
    found = canvas.to_image(box_of(laid > 0), GRID)[0]
    assert np.abs(found - box).max() <= 640 / 24
    heat = canvas.over_image(laid)
    assert heat.shape == ((18, 24) if width > height else (24, 18))
    back = box_of(heat > 0.5)[0] * np.tile([width / heat.shape[1], height / heat.shape[0]], 2)
    assert np.abs(back - box).max() <= 640 / 24
    border = ~canvas.shown((48, 48))
    assert border.sum() == 48 * 12 and border[:6].all() == (width > height) and border[:, :6].all() == (width < height)
    mask = canvas.mask(laid > 0)
    assert mask.shape == (height, width)
    assert np.abs(box_of(mask)[0] - box).max() <= 640 / 24


def test_a_small_box_holds_the_cell_it_is_nearest() -> None:
    canvas = letterboxed(640, 480)
    held = canvas.inside(np.array([10.0, 10.0, 12.0, 12.0]))
    assert held.sum() == 1
    (found,) = canvas.to_image(box_of(held), GRID)
    assert found[0] <= 10 and found[1] <= 12 <= found[3] and found[2] >= 12


def test_a_squashed_map_over_the_image_is_the_map() -> None:
    frame = Frame.identity(90, 50).resize(320, 320)
    canvas = Canvas(Shown(ImageTokens.raster(frame, (10, 10))), frame)  # type: ignore[arg-type]
    heat = np.random.default_rng(0).random((10, 10)).astype(np.float32)
    np.testing.assert_allclose(canvas.over_image(heat), heat, atol=1e-6)
    np.testing.assert_array_equal(canvas.lay(heat.reshape(1, 100))[0], heat)


def test_what_a_centre_crop_cut_away_is_cold() -> None:
    frame = Frame.identity(200, 100).crop(50, 0, 100, 100).resize(40, 40)
    canvas = Canvas(Shown(ImageTokens.raster(frame, (4, 4))), frame)  # type: ignore[arg-type]
    heat = canvas.over_image(np.ones((4, 4), np.float32))
    assert heat.shape == (4, 8)
    np.testing.assert_array_equal(heat[0], [0, 0, 1, 1, 1, 1, 0, 0])
    assert not canvas.mask(np.ones((4, 4), bool))[:, :50].any()


def test_tiles_draw_the_map_finer_and_attention_adds_up() -> None:
    """A whole view of 2 x 2 tokens, and 4 tiles of 2 x 2 tokens each: the map has 4 x 4 cells."""
    whole = Frame.identity(80, 80)
    boxes = np.concatenate([whole.cells(2, 2), whole.cells(4, 4)])
    seen = np.arange(20) < 4
    canvas = Canvas(Shown(ImageTokens(np.arange(20), boxes, seen, (2, 2), whole)), whole)  # type: ignore[arg-type]
    assert canvas.grid == (4, 4)
    rows = np.zeros((2, 20), np.float32)
    rows[0, 3] = 0.4  # the lower right quarter
    rows[1, 4 + 5] = 0.3  # row 1, column 1 of the fine grid
    laid = canvas.lay(rows)
    assert (laid[0, 2:, 2:] == np.float32(0.1)).all() and laid[0].sum() == pytest.approx(0.4)
    assert laid[1, 1, 1] == np.float32(0.3) and np.count_nonzero(laid[1]) == 1


@pytest.mark.parametrize(("width", "height"), [(640, 427), (480, 640), (500, 333)])
@pytest.mark.parametrize("tiles", [(2, 2), (3, 4)])
def test_an_even_look_is_even_however_the_tiles_lie(width: int, height: int, tiles: tuple[int, int]) -> None:
    """Tiles do not divide the whole view's cells in whole numbers: attention spreads by area."""
    whole = Frame.identity(width, height).resize(336, 336)
    side = Frame.identity(width, height)
    boxes = np.concatenate([whole.cells(24, 24), side.cells(24 * tiles[0], 24 * tiles[1])])
    seen = np.arange(len(boxes)) < 576
    canvas = Canvas(Shown(ImageTokens(np.arange(len(boxes)), boxes, seen, GRID, whole)), whole)  # type: ignore[arg-type]
    laid = canvas.lay((~seen).astype(np.float32)[None])[0]
    assert laid.sum() == pytest.approx(len(boxes) - 576, rel=1e-4)
    np.testing.assert_allclose(laid, laid.mean(), rtol=1e-3)


def test_every_family_lays_all_it_looks_at_over_the_image(vlm: Any) -> None:
    """A token's attention lands where its box is; a map keeps the sum of what tokens over the image get."""
    frame = vlm.frame_of(90, 70)
    canvas, tokens = Canvas(vlm, frame), vlm.image_tokens(frame)
    count = len(vlm.cells(frame).boxes) if vlm.latents else len(tokens.boxes)
    boxes = vlm.cells(frame).boxes if vlm.latents else tokens.boxes
    laid = canvas.lay(np.eye(count, dtype=np.float32))
    for box, heat in zip(boxes, laid, strict=True):
        if heat.sum() == 0:  # padding, or CLS
            assert (box[2] - box[0]) * (box[3] - box[1]) == 0 or (box == [0, 0, 90, 70]).all()
            continue
        seen = (box[2:] <= np.array(tokens.frame.visible[2:]) + 1e-6).all()
        assert heat.sum() == pytest.approx(1) if seen else 0 < heat.sum() < 1  # tiles may see more than the whole view
        found = canvas.to_image(box_of(heat > 0), heat.shape)[0]
        if (box[2:] > box[:2]).all():
            x0, y0, x1, y1 = canvas.to_image(np.array([[0.0, 0, 1, 1]]), heat.shape)[0]
            cell, shown = np.array([x1 - x0, y1 - y0] * 2), np.minimum(box, [*tokens.frame.visible[2:]] * 2)
            assert (np.abs(found - shown) <= cell + 1e-6).all(), (found, box)


def test_a_sequence_without_an_image_is_said_to_be_one() -> None:
    none = ImageTokens(np.empty(0, np.int64), np.empty((0, 4)), np.empty(0, bool), (0, 0), Frame.identity(8, 8))
    with pytest.raises(InputError, match="No image token"):
        Canvas(Shown(none), Frame.identity(8, 8))  # type: ignore[arg-type]


@pytest.mark.parametrize(("left", "right"), [(0, 0), (0, 160), (160, 0), (100, 60)])
def test_a_map_of_the_mirror_image_is_turned_about_the_middle_of_the_image(left: int, right: int) -> None:
    """A border stays on its side: with one on the right, column 0 of the image is still column 0 of the map."""
    width = 480
    frame = Frame.identity(width, 640).pad(left, 0, right, 0).resize(320, 320)
    canvas = Canvas(Shown(ImageTokens.raster(frame, (16, 16))), frame)  # type: ignore[arg-type]
    box = np.array([60.0, 100.0, 180.0, 300.0])
    turned = np.array([width - box[2], box[1], width - box[0], box[3]])
    drawn = canvas.inside(box).astype(np.float32)
    (back,) = canvas.mirror(canvas.inside(turned)[None].astype(np.float32))
    assert np.abs(box_of(back > 0.5) - box_of(drawn > 0.5)).max() <= 1
    assert back.sum() == pytest.approx(drawn.sum(), rel=0.3)


def test_a_large_picture_is_laid_without_a_weight_for_each_pair() -> None:
    """12 megapixels in patches of 28: 15,552 tokens, one weight each, where a table of all pairs has 242 million."""
    frame = Frame.identity(4032, 3024)
    canvas = Canvas(Shown(ImageTokens.raster(frame, (108, 144))), frame)  # type: ignore[arg-type]
    assert canvas._weights.nnz == 108 * 144
    row = np.random.default_rng(0).random((1, 108 * 144), np.float32)
    np.testing.assert_array_equal(canvas.lay(row)[0], row.reshape(108, 144))

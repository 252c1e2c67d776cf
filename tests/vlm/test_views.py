"""Every picture of every image processor shows, cell by cell, the place in the original that its Frame says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pytest import approx
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from wherein.errors import ImageError, InputError
from wherein.geometry import Frame, area
from wherein.vlm.views import Views, ViewsOf, any_resolution, centre_crop, dynamic, patches, split, squash

# What a filter is has no say in the geometry, and this one never overshoots: a pixel without padding is exactly blue.
BILINEAR: dict[str, Any] = {"resample": Image.Resampling.BILINEAR}
SIZES = [(1, 1), (1, 37), (37, 1), (4000, 300), (300, 4000), (97, 61), (61, 97), (64, 64), (20, 13), (335, 224)]


@dataclass(frozen=True)
class Case:
    views_of: ViewsOf
    processor: Any

    def views(self, image: Image.Image) -> Views:
        return self.views_of(self.processor, image.width, image.height)


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def clip(shortest: int, **options: Any) -> Case:
    return Case(centre_crop, CLIPImageProcessorPil(**BILINEAR, size={"shortest_edge": shortest}, **options))


def qwen(patch: int, low: int, high: int) -> Case:
    return Case(dynamic, Qwen2VLImageProcessorPil(**BILINEAR, patch_size=patch, min_pixels=low, max_pixels=high))


def idefics3(longest: int, tile: int = 56, base: type = Idefics3ImageProcessorPil, **options: Any) -> Case:
    tiles = {"max_image_size": {"longest_edge": tile}, "size": {"longest_edge": longest}}
    return Case(split, base(**BILINEAR, **tiles, **options))


def intern(**options: Any) -> Case:
    return Case(patches, GotOcr2ImageProcessorPil(**BILINEAR, size=square(56), **options))


PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
NINE = [[56 * rows, 56 * columns] for rows in range(1, 7) for columns in range(1, 7) if rows * columns <= 9]
CASES = {
    "blip": Case(squash, BlipImageProcessorPil(**BILINEAR, size={"height": 56, "width": 84})),
    "siglip": Case(squash, SiglipImageProcessorPil(**BILINEAR, size=square(56))),
    "gemma3": Case(squash, Gemma3ImageProcessorPil(**BILINEAR, size=square(56))),
    "idefics": Case(squash, IdeficsImageProcessorPil(**BILINEAR, image_size=56)),
    "clip": clip(56, crop_size=square(56)),
    "clip-cut-more": clip(61, crop_size={"height": 42, "width": 56}),
    "clip-smaller-than-the-crop": clip(27, crop_size=square(56)),
    "clip-not-resized": clip(56, crop_size=square(56), do_resize=False),
    "kosmos2": Case(centre_crop, CLIPImageProcessorPil(**BILINEAR, use_square_size=True)),
    "llava": Case(centre_crop, LlavaImageProcessorPil(**BILINEAR, size={"shortest_edge": 56}, crop_size=square(56))),
    "llava-letterbox": Case(
        centre_crop, LlavaImageProcessorPil(**BILINEAR, size={"shortest_edge": 56}, crop_size=square(56), do_pad=True)
    ),
    "llava-next": Case(
        any_resolution,
        LlavaNextImageProcessorPil(
            **BILINEAR, size={"shortest_edge": 56}, crop_size=square(56), image_grid_pinpoints=PINPOINTS
        ),
    ),
    "llava-next-cut": Case(  # the base and every tile lose their borders
        any_resolution,
        LlavaNextImageProcessorPil(
            **BILINEAR, size={"shortest_edge": 63}, crop_size=square(56), image_grid_pinpoints=PINPOINTS
        ),
    ),
    "llava-onevision": Case(
        any_resolution, LlavaOnevisionImageProcessorPil(**BILINEAR, size=square(56), image_grid_pinpoints=NINE)
    ),
    "llava-onevision-uneven": Case(  # the last tiles of a row and column are smaller, and stretched
        any_resolution,
        LlavaOnevisionImageProcessorPil(**BILINEAR, size=square(56), image_grid_pinpoints=[[84, 140], [140, 70]]),
    ),
    "qwen2-vl": qwen(14, 56 * 56, 28 * 28 * 40),
    "qwen3-vl": qwen(16, 32 * 32, 32 * 32 * 9),
    "idefics3": idefics3(224),
    "idefics3-whole": idefics3(224, do_image_splitting=False),
    "idefics3-not-resized": idefics3(224, do_resize=False, tile=112),
    "smolvlm": idefics3(150, base=SmolVLMImageProcessorPil),
    "intern": intern(),
    "intern-patches": intern(crop_to_patches=True),
    "intern-five-patches": intern(crop_to_patches=True, min_patches=2, max_patches=5),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def gradient(width: int, height: int) -> Image.Image:
    """Red is x and green is y, 255 at the far edge; blue is 255, so that less of it is padding."""
    x, y = (np.arange(side) + 0.5 for side in (width, height))
    red, green = np.meshgrid(x / width * 255, y / height * 255)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 255)], axis=-1).round().astype(np.uint8))


def pictures(processor: Any, image: Image.Image) -> list[NDArray[np.float64]]:
    """What the processor gives, float64[3, h, w] in 0..1 again."""
    made = processor(image, return_tensors="np")
    values = np.asarray(made["pixel_values"] if isinstance(made, Mapping) else made, dtype=np.float64)
    if values.ndim == 2:
        values = from_blocks(values, *made["image_grid_thw"][0][1:], processor)
    mean, std = (np.array(numbers)[:, None, None] for numbers in (processor.image_mean, processor.image_std))
    return [picture * std + mean for picture in values.reshape(-1, *values.shape[-3:])]


def from_blocks(values: NDArray[np.float64], rows: int, cols: int, processor: Any) -> NDArray[np.float64]:
    """Qwen's flattened patches, in the order of blocks that are merged, as the picture float64[3, h, w]."""
    merge, patch = processor.merge_size, processor.patch_size
    raster = np.arange(rows * cols).reshape(rows // merge, merge, cols // merge, merge).transpose(0, 2, 1, 3).ravel()
    grid = np.empty((rows * cols, 3, patch, patch))
    grid[raster] = values.reshape(rows * cols, 3, processor.temporal_patch_size, patch, patch)[:, :, 0]
    return grid.reshape(rows, cols, 3, patch, patch).transpose(2, 0, 3, 1, 4).reshape(3, rows * patch, cols * patch)


def compare(frame: Frame, picture: NDArray[np.float64], image: NDArray[np.uint8]) -> int:
    """Compare the picture of a gradient, cell by cell, with what `frame.cells` says; how many could be compared."""
    assert picture.shape == (3, frame.model_height, frame.model_width)
    cell = 7 if frame.model_width % 7 == frame.model_height % 7 == 0 else 8
    rows, cols = frame.model_height // cell, frame.model_width // cell
    seen = picture.reshape(3, rows, cell, cols, cell).transpose(0, 1, 3, 2, 4).reshape(3, rows * cols, cell * cell)
    cells = frame.cells(rows, cols)
    share = area(cells) * frame.scale_x * frame.scale_y / cell**2
    assert (seen[2, share < 1e-6].mean(axis=-1) < 0.75).all()  # LLaVA pads with CLIP's mean colour, not with black
    assert (seen[2, share > 1 - 1e-6].mean(axis=-1) > 0.9).all()
    inside = (share > 1 - 1e-6) & (seen[2].min(axis=-1) > 0.999)
    colours = seen[:2, inside].mean(axis=-1)
    lines = (image[0, :, 0], frame.scale_x), (image[:, 0, 1], frame.scale_y)
    for axis, (line, scale) in enumerate(lines):
        expected = along(line, cells[inside, axis], cells[inside, axis + 2])
        error = np.abs(colours[axis] - expected) * len(line)  # original pixels
        rounding = 0.5 * len(line) / 255  # half a level of colour
        assert (error <= 0.75 / scale + rounding).all()
    return int(inside.sum())


def along(line: NDArray[np.uint8], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of a row or column of pixels 0..255 between positions `low` and `high` float64[N], in 0..1."""
    places = low[:, None] + (high - low)[:, None] * (np.arange(50) + 0.5) / 50
    return np.interp(places, np.arange(len(line)) + 0.5, line / 255).mean(axis=-1)


def check(case: Case, width: int, height: int) -> None:
    image = gradient(width, height)
    views, shown = case.views(image), pictures(case.processor, image)
    assert len(views.frames) == len(shown)
    compared = [compare(frame, picture, np.asarray(image)) for frame, picture in zip(views.frames, shown, strict=True)]
    if min(width, height) > 13 and max(width, height) < 3 * min(width, height):
        assert compared[views.whole] > 0


@every_case
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_cells_show_what_the_frame_says(case: Case, size: tuple[int, int]) -> None:
    check(case, *size)


@st.composite
def sizes(draw: st.DrawFn, low: int, high: int) -> tuple[int, int]:
    """Sides of at most 4 : 1: scaled to a few pixels and up again, a side shows nothing finer than those few."""
    width = draw(st.integers(low, high))
    return width, draw(st.integers(max(low, width // 4 + 1), min(high, 4 * width)))


@every_case
@settings(max_examples=15, deadline=None)
@given(sizes(8, 300))
def test_cells_show_what_the_frame_says_at_any_size(case: Case, size: tuple[int, int]) -> None:
    check(case, *size)


@every_case
@settings(max_examples=15, deadline=None)
@given(sizes(60, 400), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_drawn_box_is_found_where_the_whole_view_says(case: Case, size: tuple[int, int], places: list[float]) -> None:
    x0, x1 = sorted(round(place * size[0]) for place in places[:2])
    y0, y1 = sorted(round(place * size[1]) for place in places[2:])
    image = Image.new("RGB", size)
    image.paste("white", (x0, y0, x1, y1))
    views = case.views(image)
    frame, picture = views.frames[views.whole], pictures(case.processor, image)[views.whole]

    box = np.array([[x0, y0, x1, y1]])
    seen = np.clip(box, np.tile(frame.visible[:2], 2), np.tile(frame.visible[2:], 2))
    assert frame.truncated(box).tolist() == [not np.allclose(seen, box)]
    left, top, right, bottom = frame.to_model(seen)[0]
    assume(min(right - left, bottom - top) > 2)
    rows, cols = np.nonzero(picture.min(axis=0) > 0.5)
    found = np.array([[cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]])
    np.testing.assert_allclose(found, [[left, top, right, bottom]], atol=1)
    back = np.abs(frame.to_image(found) - seen)
    assert (back <= np.tile([1 / frame.scale_x, 1 / frame.scale_y], 2) + 1e-6).all()


@pytest.mark.parametrize("name", ["llava-next", "llava-onevision", "llava-onevision-uneven", "idefics3", "smolvlm"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tiles_show_every_part_once(name: str, size: tuple[int, int]) -> None:
    case = CASES[name]
    views = case.views_of(case.processor, *size)
    assert views.frames[views.whole].visible == (0, 0, *size)
    tiles = [frame.visible for i, frame in enumerate(views.frames) if i != views.whole]
    if tiles:
        assert area(tiles).sum() == approx(size[0] * size[1])


def test_orders_and_corners_by_hand() -> None:
    onevision = CASES["llava-onevision"].views(Image.new("RGB", (200, 100)))
    assert (len(onevision.frames), onevision.whole) == (1 + 8, 0)
    assert [frame.visible for frame in onevision.frames[1:3]] == [approx((0, 0, 50, 50)), approx((50, 0, 100, 50))]
    intern = CASES["intern-patches"].views(Image.new("RGB", (200, 100)))
    assert (len(intern.frames), intern.whole) == (8 + 1, 8)
    assert len(CASES["intern"].views(Image.new("RGB", (200, 100))).frames) == 1
    smolvlm = CASES["smolvlm"].views(Image.new("RGB", (200, 100)))
    assert (len(smolvlm.frames), smolvlm.whole) == (3 * 2 + 1, 6)
    # 27 pixels in the middle of 56: the odd pixel of border lies above and to the left.
    assert CASES["clip-smaller-than-the-crop"].views(Image.new("RGB", (9, 9))).frames[0].offset_x == 15


@pytest.mark.parametrize("size", [(4000, 1), (3, 601)], ids=str)
def test_what_the_processor_refuses_is_the_images_fault(size: tuple[int, int]) -> None:
    case = CASES["qwen2-vl"]
    with pytest.raises(ValueError, match="aspect ratio"):
        case.processor(Image.new("RGB", size))
    with pytest.raises(ImageError, match=f"{size[0]} x {size[1]} pixels is too long and thin"):
        case.views_of(case.processor, *size)


def test_preprocessing_that_is_not_served_is_refused() -> None:
    with pytest.raises(InputError, match="do_pan_and_scan"):
        squash(Gemma3ImageProcessorPil(do_pan_and_scan=True), 100, 100)
    with pytest.raises(InputError, match="shortest_edge"):
        centre_crop(CLIPImageProcessorPil(size={"shortest_edge": 56, "longest_edge": 90}), 100, 100)


def test_steps_switched_off_are_not_taken() -> None:
    assert dynamic(Qwen2VLImageProcessorPil(do_resize=False), 56, 28).frames == (Frame.identity(56, 28),)
    assert squash(BlipImageProcessorPil(do_resize=False), 56, 28).frames == (Frame.identity(56, 28),)

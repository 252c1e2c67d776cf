"""What each kind of preprocessing does to an image's geometry: one function a kind, one Frame a picture it makes.

Each repeats, from the image processor's own attributes and by transformers' own size helpers, the steps of the
processors named in its docstring, in their `...ImageProcessorPil` form (`AutoImageProcessor.from_pretrained(...,
backend="pil")`): the torchvision form lays an image smaller than its crop up to a pixel further up and to the left.
What a call overrides (`processor(images, do_pan_and_scan=True)`) is not seen here: set it on the processor instead.
Views are those of an image processed alone; a batch may carry further pictures of zeros behind an image's own.

What a docstring begins with, up to the colon, is what the table of families says of the kind (wherein.overview).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wherein.errors import ImageError, InputError
from wherein.geometry import Frame


@dataclass(frozen=True)
class Views:
    """What the encoder sees of one image.

    Attributes:
        frames: one a picture, in the order of the processor's `pixel_values`.
        whole: index of the picture that shows the whole image, or as much of it as a centre crop leaves.
    """

    frames: tuple[Frame, ...]
    whole: int


ViewsOf = Callable[[Any, int, int], Views]  # (image processor, original width, original height) -> Views


def squash(processor: Any, width: int, height: int) -> Views:
    """Squashed to a square: one picture of a fixed size, each axis scaled on its own.

    BLIP-2, InstructBLIP, PaliGemma (SigLIP), Gemma 3, Idefics v1, OpenFlamingo.

    Raises:
        InputError: pan-and-scan (Gemma 3) is switched on.
    """
    if getattr(processor, "do_pan_and_scan", False):
        raise InputError(
            "Pan-and-scan is switched on in the image processor and is not served: set do_pan_and_scan off."
        )
    return Views((_resize_and_crop(processor, Frame.identity(width, height)),), 0)


def centre_crop(processor: Any, width: int, height: int) -> Views:
    """Centre crop: one picture, the shortest side scaled, the centre cut out; what is smaller gets a border.

    CLIP, Kosmos-2, LLaVA-1.5, and LLaVA's letterbox: with `do_pad` its processor makes the image a square first.
    """
    frame = Frame.identity(width, height)
    if processor.do_pad and hasattr(processor, "pad_to_square"):
        frame = _centred(frame, max(width, height), max(width, height))
    return Views((_resize_and_crop(processor, frame),), 0)


def any_resolution(processor: Any, width: int, height: int) -> Views:
    """Whole, and tiles: the image squashed to a tile, then the tiles of the pinpoint that fits it best.

    LLaVA-NeXT, LLaVA-OneVision.
    """
    from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
    from transformers.image_utils import ChannelDimension

    image, size, crop = Frame.identity(width, height), processor.size, processor.crop_size
    base = (size.width, size.height) if size.height and size.width else (size.shortest_edge, size.shortest_edge)
    tile = (crop and crop.height) or size.height or size.shortest_edge
    best = select_best_resolution((height, width), processor.image_grid_pinpoints)
    rows, columns = get_patch_output_size(_blank(image), best, ChannelDimension.FIRST)  # type: ignore[no-untyped-call]
    canvas = _centred(image.resize(columns, rows), best[1], best[0])
    pictures = (image.resize(*base), *_tiles(canvas, tile, tile))
    return Views(tuple(_resize_and_crop(processor, picture) for picture in pictures), 0)


def dynamic(processor: Any, width: int, height: int) -> Views:
    """Any resolution: one picture of about the image's own size, in whole merged patches.

    Qwen2-VL, Qwen2.5-VL, Qwen3-VL.

    Raises:
        ImageError: the processor refuses an image this long and thin.
    """
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    frame = Frame.identity(width, height)
    if not processor.do_resize:
        return Views((frame,), 0)
    factor, size = processor.patch_size * processor.merge_size, processor.size
    try:
        rows, columns = smart_resize(height, width, factor, size.shortest_edge, size.longest_edge)
    except ValueError as error:
        raise ImageError(
            f"An image of {width} x {height} pixels is too long and thin for this model ({error}): crop or pad it."
        ) from error
    return Views((frame.resize(columns, rows),), 0)


def split(processor: Any, width: int, height: int) -> Views:
    """Whole, and tiles: those of the image scaled to whole tiles come first, then the image squashed to one.

    Idefics3, SmolVLM. Without splitting, and where one tile holds the image, that one picture.
    """
    tile = processor.max_image_size["longest_edge"]
    frame = Frame.identity(width, height)
    if processor.do_resize:
        frame = _resize_longest(frame, processor.size)
    if not processor.do_image_splitting:
        return Views((frame.resize(tile, tile),), 0)
    frame = _resize_to_tiles(frame, tile)
    if (frame.model_width, frame.model_height) == (tile, tile):
        return Views((frame,), 0)
    tiles = _tiles(frame, tile, tile)
    return Views((*tiles, frame.resize(tile, tile)), len(tiles))


def patches(processor: Any, width: int, height: int) -> Views:
    """Whole (tiles if set): the tiles of the image squashed to the tile grid nearest its shape, then a thumbnail.

    InternVL (GotOcr2). `crop_to_patches` is off in the image processor by default, and `InternVLProcessor` switches it
    on in every call: an InternVL image processor needs it set for its views to be those of that call. One tile has no
    thumbnail.
    """
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    image, size = Frame.identity(width, height), processor.size
    if not processor.crop_to_patches or processor.max_patches <= 1:
        return Views((_resize_and_crop(processor, image),), 0)
    limits = processor.min_patches, processor.max_patches
    columns, rows = get_optimal_tiled_canvas((height, width), (size.height, size.width), *limits)
    tiles = _tiles(image.resize(columns * size.width, rows * size.height), size.width, size.height)
    if len(tiles) == 1:
        return Views(tiles, 0)
    return Views((*tiles, image.resize(size.width, size.height)), len(tiles))


def _resize_and_crop(processor: Any, frame: Frame) -> Frame:
    """The plain last steps, each where the processor has it switched on."""
    if processor.do_resize:
        frame = _resize(frame, processor.size)
    if processor.do_center_crop:
        crop = processor.crop_size
        left, top = (frame.model_width - crop.width) // 2, (frame.model_height - crop.height) // 2
        frame = frame.crop(left, top, crop.width, crop.height)  # a negative corner is the border of a smaller image
    return frame


def _resize(frame: Frame, size: Any) -> Frame:
    """To a fixed height and width, or the shortest edge to a fixed length."""
    from transformers.image_transforms import get_resize_output_image_size
    from transformers.image_utils import ChannelDimension

    if size.height and size.width:
        return frame.resize(size.width, size.height)
    if not size.shortest_edge or size.longest_edge:
        raise InputError(
            f"The image processor resizes to {dict(size)}: expected a height and width, or a shortest_edge."
        )
    rows, columns = get_resize_output_image_size(
        _blank(frame), size.shortest_edge, default_to_square=False, input_data_format=ChannelDimension.FIRST
    )
    return frame.resize(columns, rows)


def _resize_longest(frame: Frame, size: Any) -> Frame:
    """To a fixed longest edge (and an even shortest one), or to a fixed height and width."""
    from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size

    if not size.longest_edge:
        return frame.resize(size.width, size.height)
    rows, columns = get_resize_output_image_size(_blank(frame), size.longest_edge)
    return frame.resize(columns, rows)


def _resize_to_tiles(frame: Frame, tile: int) -> Frame:
    """Both sides up to multiples of `tile`; the order of the truncations is the processor's and decides the count."""
    width, height = frame.model_width, frame.model_height
    ratio = width / height
    if width >= height:
        width = ceil(width / tile) * tile
        height = ceil(int(width / ratio) / tile) * tile
    else:
        height = ceil(height / tile) * tile
        width = ceil(int(height * ratio) / tile) * tile
    return frame.resize(width, height)


def _centred(frame: Frame, width: int, height: int) -> Frame:
    """In the middle of a larger picture; the odd pixel of border goes right and below."""
    left, top = (width - frame.model_width) // 2, (height - frame.model_height) // 2
    return frame.pad(left, top, width - frame.model_width - left, height - frame.model_height - top)


def _tiles(frame: Frame, width: int, height: int) -> tuple[Frame, ...]:
    """Cut into tiles, raster order; those at the right and below are smaller where the sides are no multiples."""
    return tuple(
        frame.crop(x, y, min(width, frame.model_width - x), min(height, frame.model_height - y))
        for y in range(0, frame.model_height, height)
        for x in range(0, frame.model_width, width)
    )


def _blank(frame: Frame) -> NDArray[np.uint8]:
    """A picture uint8[3, height, width] for helpers that want only its size: one byte of memory."""
    return np.broadcast_to(np.uint8(0), (3, frame.model_height, frame.model_width))

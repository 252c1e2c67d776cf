"""Where attention to image tokens lies in the image: one map over the view of the whole image, whatever the tokens are.

A token in raster order is a cell. Tiles show the same places again and finer: the map is then drawn finer, and what a
tile's token gets is added where the tile lies. Latents hand what they get to the patches that they are made of.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from wherein.errors import InputError
from wherein.geometry import Boxes, Frame
from wherein.vlm.base import FrozenVLM, ImageTokens

FINEST = 4  # how many times as fine as the whole view's tokens a map is drawn at most


class Canvas:
    """The grid of maps of images with one Frame.

    frame: of what a map lies over · grid: (rows, columns) of a map, over all that the whole view's cells cover, padding
    included · positions int64[M]: the image's tokens among the keys of the attention seam.
    Raises InputError where the model's sequence has none.
    """

    def __init__(self, vlm: FrozenVLM, frame: Frame) -> None:
        tokens = vlm.image_tokens(frame)
        if not len(tokens.positions):
            raise InputError(f"No image token was found in the sequence of {vlm.name}: its processor puts none in.")
        self.frame, self.positions = tokens.frame, tokens.positions
        seen = _patches(vlm, tokens) if vlm.latents else tokens
        fine = _fineness(seen)
        self.grid = (seen.grid[0] * fine, seen.grid[1] * fine)
        self._weights = self._shares(self._in_view(seen))

    def lay(self, rows: NDArray[np.float32], shares: Tensor | None = None) -> NDArray[np.float32]:
        """Attention float32[..., M] to the image's tokens -> maps float32[..., R, C]; what lies in the image is kept.

        `shares` float[M, N]: of the rows of x_v in each latent, for a model with latents.
        """
        rows = rows if shares is None else rows @ shares.float().cpu().numpy()
        laid: Any = rows.reshape(-1, rows.shape[-1]) @ self._weights
        return np.asarray(laid, np.float32).reshape(*rows.shape[:-1], *self.grid)

    def mirror(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps float32[..., R, C] of the image's mirror image as maps of the image.

        They are turned about the image's middle, which a border on one side moves away from the map's.
        """
        columns = self.grid[1]
        middle = (self.frame.offset_x + self.frame.width * self.frame.scale_x / 2) / self._cell(self.grid)[0]
        return np.asarray(maps @ _hats(2 * middle - np.arange(columns) - 0.5, columns).T, np.float32)

    def to_image(self, boxes: Boxes, grid: tuple[int, int]) -> Boxes:
        """Boxes float64[K, 4] in cells of a map of this `grid` as boxes in original pixels."""
        return self.frame.to_image(boxes * self._cell(grid))

    def inside(self, box: Boxes) -> NDArray[np.bool_]:
        """Cells bool[R, C] whose centres lie in a box float64[4] of the original image; where none do, the nearest."""
        held = self._within(box, self.grid)
        if not held.any():
            x0, y0, x1, y1 = self.frame.to_model(box[None])[0] / self._cell(self.grid)
            middle = np.array([y0 + y1, x0 + x1]) / 2
            held[tuple(np.clip(middle, 0, np.array(self.grid) - 1).astype(int))] = True
        return held

    def shown(self, grid: tuple[int, int]) -> NDArray[np.bool_]:
        """Cells bool[grid] of a map of any resolution whose centres show the image, and no border of it."""
        return self._within(np.array(self.frame.visible), grid)

    def _within(self, box: Boxes, grid: tuple[int, int]) -> NDArray[np.bool_]:
        """Cells bool[grid] whose centres lie in a box float64[4] of the original image."""
        x0, y0, x1, y1 = self.frame.to_model(box[None])[0] / self._cell(grid)
        rows, columns = np.arange(grid[0]) + 0.5, np.arange(grid[1]) + 0.5
        held: NDArray[np.bool_] = np.logical_and.outer((rows > y0) & (rows < y1), (columns > x0) & (columns < x1))
        return held

    def over_image(self, heat: NDArray[np.float32], shape: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """A map float[R', C'] of any resolution, linearly sampled over the original image alone: float32[shape].

        Without a shape, as many cells as the map has there. What a crop cut away is 0.
        """
        step_x, step_y = self._cell(heat.shape)[:2]
        if shape is None:
            rows = round(self.frame.height * self.frame.scale_y / step_y)
            columns = round(self.frame.width * self.frame.scale_x / step_x)
            shape = max(1, rows), max(1, columns)
        y = (np.arange(shape[0]) + 0.5) / shape[0] * self.frame.height * self.frame.scale_y + self.frame.offset_y
        x = (np.arange(shape[1]) + 0.5) / shape[1] * self.frame.width * self.frame.scale_x + self.frame.offset_x
        down, across = _hats(y / step_y, heat.shape[0]), _hats(x / step_x, heat.shape[1])
        return np.asarray(down @ heat @ across.T, np.float32)

    def mask(self, cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Cells bool[R', C'] of a map as pixels bool[H, W] of the original image, edges smoothed."""
        return self.over_image(cells.astype(np.float32), (self.frame.height, self.frame.width)) >= 0.5

    def _cell(self, grid: tuple[int, int]) -> NDArray[np.float64]:
        """float64[4]: a cell of a map's width and height, twice, model pixels."""
        return np.tile([self.frame.model_width / grid[1], self.frame.model_height / grid[0]], 2)

    def _in_view(self, seen: ImageTokens) -> Boxes:
        """What each token sees as a box float64[M, 4] in cells of the map, tokens over a border included."""
        boxes = self.frame.to_model(seen.boxes) / self._cell(self.grid)
        x, y = np.meshgrid(np.arange(seen.grid[1]), np.arange(seen.grid[0]))
        raster = np.stack([x, y, x + 1, y + 1], -1).reshape(-1, 4) * (self.grid[0] // seen.grid[0])
        boxes[seen.whole] = raster[: int(seen.whole.sum())]  # their boxes are cut to the image
        return np.asarray(boxes)

    def _shares(self, boxes: Boxes) -> sparse.csr_matrix:
        """Which share of each box float64[M, 4], in cells, lies over each cell: float32[M, R C], a row's sum 1, or less
        where tiles see more than the whole view does; an empty box lies over none."""
        lows, highs = boxes[:, :2].round(6), boxes[:, 2:].round(6)
        first = np.floor(lows).astype(int)
        span = max(1, int((np.ceil(highs) - first).max(initial=1)))
        cells = first[:, :, None] + np.arange(span)  # int[M, 2, span]: columns, and rows, that a box may lie over
        over = np.clip(np.minimum(highs[:, :, None], cells + 1) - np.maximum(lows[:, :, None], cells), 0, 1)
        over *= (cells >= 0) & (cells < np.array(self.grid[::-1])[:, None])
        share = over[:, 1, :, None] * over[:, 0, None, :]
        token, down, across = share.nonzero()
        held = cells[token, 1, down] * self.grid[1] + cells[token, 0, across]
        share = share[token, down, across] / (highs - lows).prod(1)[token]
        return sparse.csr_matrix((share.astype(np.float32), (token, held)), (len(boxes), self.grid[0] * self.grid[1]))


def _patches(vlm: FrozenVLM, latents: ImageTokens) -> ImageTokens:
    """The rows of x_v as tokens would be, for a model with latents; CLS sees everything, so it says no place."""
    boxes = vlm.cells(latents.frame).boxes.copy()
    boxes[(boxes == [0, 0, latents.frame.width, latents.frame.height]).all(1)] = 0
    return ImageTokens(np.arange(len(boxes)), boxes, np.zeros(len(boxes), bool), latents.grid, latents.frame)


def _fineness(tokens: ImageTokens) -> int:
    """How many cells a side of the whole view's token is drawn as, so that no token of a tile is drawn too coarse."""
    if tokens.whole.all() or not tokens.whole.any():
        return 1
    whole, tiles = (
        np.median(tokens.boxes[part][:, 2:] - tokens.boxes[part][:, :2], 0) for part in (tokens.whole, ~tokens.whole)
    )
    return int(np.clip(np.ceil((whole / np.maximum(tiles, 1e-6)).max() - 0.1), 1, FINEST))


def _hats(places: NDArray[np.float64], count: int) -> NDArray[np.float32]:
    """float32[len(places), count]: weights of linear interpolation between cell centres; 0 outside of all cells."""
    inside = (places >= 0) & (places <= count)
    at = np.clip(places - 0.5, 0, count - 1)
    distance = np.abs(at[:, None] - np.arange(count))
    return np.asarray(np.maximum(1 - distance, 0) * inside[:, None], np.float32)

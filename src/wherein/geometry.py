"""Box arithmetic, and the exact geometry between an image, the pixels a model sees and its feature cells.

A box is `[x0, y0, x1, y1]` in continuous pixels: the origin is the top-left corner of the top-left pixel, a box over
the whole image is `[0, 0, width, height]`, and nothing is ever offset by one.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes = NDArray[np.float64]
_TOLERANCE = 1e-6  # pixels: far above float64 rounding on any image, far below anything visible


def as_boxes(boxes: ArrayLike) -> Boxes:
    """`boxes` as float64[N, 4]; an empty list is float64[0, 4].

    Raises:
        ValueError: the shape is not [N, 4].
    """
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes must have shape [N, 4], got {list(array.shape)}")
    return array


def area(boxes: ArrayLike) -> NDArray[np.float64]:
    """Area in square pixels of boxes float64[N, 4], as float64[N]; an inverted box has area 0."""
    array = as_boxes(boxes)
    return _area(array[:, :2], array[:, 2:])


def iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of boxes float64[N, 4] with boxes float64[M, 4], as float64[N, M].

    An empty or inverted box has IoU 0 with everything, itself included.

    >>> iou([[0, 0, 10, 10]], [[0, 0, 10, 10], [5, 0, 15, 10]]).round(3).tolist()  # 50 of 150 pixels
    [[1.0, 0.333]]
    """
    return _iou(as_boxes(a)[:, None], as_boxes(b)[None])


def paired_iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of the i-th box of `a` with the i-th of `b`, both float64[N, 4], as float64[N].

    Raises:
        ValueError: the two have different lengths.
    """
    first, second = as_boxes(a), as_boxes(b)
    if len(first) != len(second):
        raise ValueError(f"paired_iou needs as many boxes on each side, got {len(first)} and {len(second)}")
    return _iou(first, second)


def clip(boxes: ArrayLike, width: float, height: float) -> Boxes:
    """Boxes float64[N, 4] cut to the rectangle `[0, 0, width, height]` (pixels)."""
    return _cut(as_boxes(boxes), (0.0, 0.0, width, height))


def from_xywh(boxes: ArrayLike) -> Boxes:
    """Boxes float64[N, 4] given as x, y, width, height (COCO's way), as xyxy."""
    array = as_boxes(boxes)
    return np.concatenate([array[:, :2], array[:, :2] + array[:, 2:]], axis=1)


def _area(low: Boxes, high: Boxes) -> NDArray[np.float64]:
    sides = np.maximum(high - low, 0.0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def _iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    both = _area(np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:]))
    either = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def _cut(boxes: Boxes, window: tuple[float, float, float, float]) -> Boxes:
    x0, y0, x1, y1 = window
    return np.clip(boxes, [x0, y0, x0, y0], [x1, y1, x1, y1])


@dataclass(frozen=True)
class Frame:
    """Exact affine geometry from original pixels to model pixels: `model = original * scale + offset`, per axis.

    Start with `Frame.identity` and repeat, step by step, what the preprocessing does to the image.

    Attributes:
        width: of the original image, pixels.
        height: of the original image, pixels.
        model_width: of what the model is given, model pixels.
        model_height: of what the model is given, model pixels.
        scale_x: model pixels per original pixel, horizontally.
        scale_y: model pixels per original pixel, vertically.
        offset_x: model x of the original's left edge.
        offset_y: model y of the original's top edge.
        visible: x0, y0, x1, y1 in original pixels of the part that the crops have left; of no area when they left none.
    """

    width: int
    height: int
    model_width: int
    model_height: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float
    visible: tuple[float, float, float, float]

    @classmethod
    def identity(cls, width: int, height: int) -> "Frame":
        """The frame of an image that the model is given as it is.

        Raises:
            ValueError: a side is not positive.
        """
        _check_sides(width, height)
        return cls(width, height, width, height, 1.0, 1.0, 0.0, 0.0, (0.0, 0.0, float(width), float(height)))

    def resize(self, width: int, height: int) -> "Frame":
        """The frame after scaling to `width` x `height` model pixels, each axis on its own (squash).

        Raises:
            ValueError: a side is not positive.
        """
        _check_sides(width, height)
        x, y = width / self.model_width, height / self.model_height
        return replace(
            self,
            model_width=width,
            model_height=height,
            scale_x=self.scale_x * x,
            scale_y=self.scale_y * y,
            offset_x=self.offset_x * x,
            offset_y=self.offset_y * y,
        )

    def crop(self, x0: int, y0: int, width: int, height: int) -> "Frame":
        """The frame after cutting the window with corner `x0`, `y0` and this size, in model pixels, out of the picture.

        The window may reach outside (some processors pad that way); what lies outside shows nothing of the original.

        Raises:
            ValueError: a side is not positive.
        """
        _check_sides(width, height)
        window = self._to_original(np.array([[x0, y0, x0 + width, y0 + height]], dtype=np.float64))
        left, top, right, bottom = _cut(window, self.visible)[0].tolist()
        return replace(
            self,
            model_width=width,
            model_height=height,
            offset_x=self.offset_x - x0,
            offset_y=self.offset_y - y0,
            visible=(left, top, right, bottom),
        )

    def pad(self, left: int, top: int, right: int, bottom: int) -> "Frame":
        """The frame after adding borders of these widths, in model pixels.

        Raises:
            ValueError: a border is negative.
        """
        if min(left, top, right, bottom) < 0:
            raise ValueError(f"padding must not be negative, got {(left, top, right, bottom)}")
        return replace(
            self,
            model_width=left + self.model_width + right,
            model_height=top + self.model_height + bottom,
            offset_x=self.offset_x + left,
            offset_y=self.offset_y + top,
        )

    def to_model(self, boxes: ArrayLike) -> Boxes:
        """Boxes float64[N, 4] of the original in model pixels; what a crop cut away lies outside the picture."""
        return as_boxes(boxes) * self._scale + self._offset

    def to_image(self, boxes: ArrayLike) -> Boxes:
        """Boxes float64[N, 4] of model pixels in original pixels, cut to the image."""
        return clip(self._to_original(as_boxes(boxes)), self.width, self.height)

    def truncated(self, boxes: ArrayLike) -> NDArray[np.bool_]:
        """For boxes float64[N, 4] of the original, as bool[N]: a crop cut a part of the box away, or all of it."""
        inside = clip(boxes, self.width, self.height)  # what hangs over the image's own edge, no crop has cut
        return np.asarray((np.abs(_cut(inside, self.visible) - inside) > _TOLERANCE).any(axis=1))

    def cells(self, rows: int, cols: int) -> Boxes:
        """What each cell of a feature grid sees, as float64[rows * cols, 4] in original pixels, raster order.

        A cell over padding sees a box without area.
        """
        x, y = np.linspace(0, self.model_width, cols + 1), np.linspace(0, self.model_height, rows + 1)
        left, top = (grid.ravel() for grid in np.meshgrid(x[:-1], y[:-1]))
        right, bottom = (grid.ravel() for grid in np.meshgrid(x[1:], y[1:]))
        return _cut(self._to_original(np.stack([left, top, right, bottom], axis=1)), self.visible)

    def _to_original(self, boxes: Boxes) -> Boxes:
        return np.asarray((boxes - self._offset) / self._scale)

    @property
    def _scale(self) -> NDArray[np.float64]:
        return np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])

    @property
    def _offset(self) -> NDArray[np.float64]:
        return np.array([self.offset_x, self.offset_y, self.offset_x, self.offset_y])


def _check_sides(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"a frame needs sides of at least 1 pixel, got {width} x {height}")

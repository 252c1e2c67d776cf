"""A picture with phrases and boxes, cropped and mirrored so that everything stays true of it.

The released code drops the boxes that a crop loses and not the questions about them, and mirrors pictures whose phrases
say left and right. Here picture and everything said of it are one thing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wherein import geometry
from wherein.phrases import mirrored

KEPT = 0.5  # of a box's area must be in a crop, or the phrase no longer means what is left


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and what is said of it, one entry each: K phrases (what the decoder reads), questions (what the
    encoder reads), boxes and masks.

    image uint8[H, W, 3] · boxes float64[K, 4], xyxy, its pixels · masks bool[K, H, W], or None · others float64[N, 4]:
    the boxes of further things that are there and of which nothing is said.
    """

    image: NDArray[np.uint8]
    phrases: tuple[str, ...]
    questions: tuple[str, ...]
    boxes: NDArray[np.float64]
    masks: NDArray[np.bool_] | None = None
    others: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))

    def __post_init__(self) -> None:
        counts = {len(self.phrases), len(self.questions), len(self.boxes)}
        if self.masks is not None:
            counts.add(len(self.masks))
        if len(counts) != 1:
            raise ValueError("a scene needs one phrase, question and box each, and a mask if there are masks")

    def crop(self, x0: int, y0: int, width: int, height: int) -> Scene:
        """The window of the picture with this corner and size, inside the picture; what is mostly outside it goes.

        A phrase goes with its question, its box and its mask; what is left of the box is one of the others.
        """
        window = [x0, y0, x0, y0]
        moved = geometry.clip(self.boxes - window, width, height)
        said = (geometry.area(moved) >= KEPT * geometry.area(self.boxes)) & (geometry.area(moved) > 0)
        others = np.concatenate([geometry.clip(self.others - window, width, height), moved[~said]])
        kept = np.flatnonzero(said)
        rows, columns = slice(y0, y0 + height), slice(x0, x0 + width)
        return Scene(
            self.image[rows, columns],
            tuple(self.phrases[i] for i in kept),
            tuple(self.questions[i] for i in kept),
            moved[kept],
            None if self.masks is None else self.masks[kept][:, rows, columns],
            others[geometry.area(others) > 0],
        )

    def mirror(self) -> Scene:
        """Left and right exchanged, in the picture, in boxes and masks, and in the words."""
        return Scene(
            self.image[:, ::-1],
            tuple(mirrored(phrase) for phrase in self.phrases),
            tuple(mirrored(question) for question in self.questions),
            self._mirrored(self.boxes),
            None if self.masks is None else self.masks[:, :, ::-1],
            self._mirrored(self.others),
        )

    def _mirrored(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes float64[K, 4] of the picture as they lie in its mirror image."""
        made, width = boxes.copy(), self.image.shape[1]
        made[:, 0], made[:, 2] = width - boxes[:, 2], width - boxes[:, 0]
        return made

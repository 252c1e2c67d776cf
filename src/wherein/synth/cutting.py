"""One picture -> one cut-out: the best of several foreground masks, its largest piece, cropped tight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wherein.synth.clip import Clip, description
from wherein.synth.foreground import Finder, Refiner
from wherein.synth.placement import SOLID


class Cut(NamedTuple):
    """rgba uint8[h, w, 4], cropped tight; the candidate it is of; the object's share of the picture; its CLIP score."""

    rgba: NDArray[np.uint8]
    segmenter: str
    area: float
    score: float | None


@dataclass(frozen=True)
class Cutter:
    """Cuts objects out of pictures.

    Attributes:
        finders, refiners: by the name they have in a report.
        clip: chooses among several candidates; without it, the first is taken.
        min_area, max_area: bounds of the object's share of the picture. A mask of nearly all the picture cut nothing
            out, so candidates outside the bounds are no candidates.
    """

    finders: Mapping[str, Finder]
    refiners: Mapping[str, Refiner] = field(default_factory=dict)
    clip: Clip | None = None
    min_area: float = 0.05
    max_area: float = 0.95

    def cut(self, picture: NDArray[np.uint8], name: str) -> Cut | str:
        """The object `name` cut out of a picture uint8[H, W, 3], or in a few words why there is none.

        A picture is handled on its own: what comes of it does not depend on what else is in the job.
        """
        masks = {label: largest(mask) for label, mask in self._candidates(picture, name)}
        areas = {label: float(mask.mean()) for label, mask in masks.items()}
        fitting = [label for label, area in areas.items() if self.min_area <= area <= self.max_area]
        if not any(areas.values()):
            return "no foreground"
        if not fitting:
            return "area"
        label, score = fitting[0], None
        if self.clip is not None:
            shown = [np.where(masks[one][..., None], picture, np.uint8(255)) for one in fitting]
            scores = self.clip.scores(shown, [description(name)])[:, 0]
            label, score = fitting[int(scores.argmax())], float(scores.max())
        alpha = np.where(masks[label], np.uint8(255), np.uint8(0))
        return Cut(cropped(np.dstack([picture, alpha])), label, areas[label], score)

    def _candidates(self, picture: NDArray[np.uint8], name: str) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        for label, finder in self.finders.items():
            mask = finder.mask(picture, name)
            yield label, mask
            if mask.any():
                box = _box(largest(mask)).astype(np.float64)
                for refined, refiner in self.refiners.items():
                    yield f"{label} + {refined}", refiner.masks(picture, box[None])[0][0]


def largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected piece of a mask bool[H, W], corners connect; its holes stay holes.

    X-Paste takes the outer contour with OpenCV. Labelling finds the same piece and the same box, without filling the
    handle of a mug with what was behind it.
    """
    pieces, _ = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(mask & (pieces == sizes.argmax()))


def cropped(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[h, w, 4]: a picture with alpha uint8[H, W, 4], not all transparent, cut to the pixels that are solid."""
    x0, y0, x1, y1 = _box(rgba[..., 3] >= SOLID)
    return np.ascontiguousarray(rgba[y0:y1, x0:x1])


def _box(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """int64[4], xyxy, around the pixels of a mask that is not empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])

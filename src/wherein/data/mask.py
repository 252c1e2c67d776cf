"""The true mask of an object, kept as its annotation writes it until somebody asks for the pixels.

Notable choices:
- run lengths are read here, not by pycocotools, whose C code trusts them
- polygons are filled by pycocotools, so that figures agree with published ones; it is given none whose outline is too
  long, because it keeps 80 bytes for each pixel of an outline
"""

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wherein.data.entry import Entry, shown
from wherein.errors import InputError

_OUTLINE = 128  # the longest outline, in sides of a square that has as many pixels as the image
_EXACT = 2**53  # integers from here on are no float64 any more
_MAX_SHIFT = 60  # bits of one run length; more would be a run longer than any image, and slow to read

Polygon = list[float]
Runs = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Mask:
    """The mask of one object: `segmentation` is untouched and unchecked; `where` names its entry for complaints.

    COCO writes a list of polygons `[x0, y0, x1, y1, ...]` in pixels, or run lengths of columns from the left,
    `{"size": [height, width], "counts": list or text}`; a list of run lengths is read, too. The mask is the union of a
    list. A polygon of fewer than three points is let through and encloses nothing: real annotation files hold a few.
    """

    segmentation: Any
    where: str

    def check(self, height: int | None = None, width: int | None = None) -> None:
        """Find what `decode` would complain about, as far as it is known; nothing the size of the image is made.

        Raises:
            InputError: this is no segmentation, or it does not fit an image of this size in pixels.
            NeedsExtra: it has polygons, and pycocotools is not installed.
        """
        polygons, several = self._pieces()
        if polygons:
            _pycocotools(self.where)
        if height is not None and width is not None:
            self._check_polygons(polygons, height, width)
            for runs in several:
                self._counts(runs, height, width)

    def decode(self, height: int, width: int) -> NDArray[np.bool_]:
        """The pixels inside, bool[H, W], for the image of this size in pixels.

        Raises:
            InputError: as of `check`.
        """
        self.check(height, width)
        polygons, several = self._pieces()
        inside = np.zeros((height, width), dtype=np.bool_)
        if polygons:
            coco = _pycocotools(self.where)
            inside |= coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))).astype(np.bool_)
        for runs in several:
            counts = self._counts(runs, height, width)
            inside |= np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
        return inside

    def ignored(self, height: int, width: int) -> NDArray[np.bool_] | None:
        """The pixels that count neither for nor against an answer, bool[H, W], none of the mask's; None without any.

        Raises:
            InputError: as of `check`.
        """
        return None

    def _pieces(self) -> tuple[list[Polygon], list[Runs]]:
        """The polygons of at least three points, and the run lengths, each of sound form."""
        pieces = self.segmentation if isinstance(self.segmentation, list) else [self.segmentation]
        if not all(_is_polygon(piece) or _is_runs(piece) for piece in pieces):
            raise InputError(
                f"{self.where} has segmentation {shown(self.segmentation)}, but it must be polygons "
                "[[x0, y0, x1, y1, ...], ...] or run lengths {'size': [height, width], 'counts': ...}."
            )
        polygons = [piece for piece in pieces if isinstance(piece, list) and len(piece) >= 6]
        return polygons, [piece for piece in pieces if isinstance(piece, dict)]

    def _check_polygons(self, polygons: list[Polygon], height: int, width: int) -> None:
        """What hangs over the image by less than its own side is let through: it is cut off."""
        size, length = np.array([width, height]), 0.0
        for polygon in polygons:
            points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
            if (points < -size).any() or (points > 2 * size).any():
                raise InputError(
                    f"{self.where} has a polygon far outside its image of {width} x {height} pixels; "
                    "is it for an image of another size?"
                )
            length += float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()) + len(points)
        longest = _OUTLINE * math.sqrt(height * width)
        if length > longest:
            raise InputError(
                f"{self.where} has polygons with an outline of {length:.0f} pixels, "
                f"but in an image of {width} x {height} pixels it may have {longest:.0f}."
            )

    def _counts(self, runs: Runs, height: int, width: int) -> list[int]:
        """The lengths of the runs, of which the first is outside, the second inside, and so on."""
        if runs["size"] != [height, width]:
            raise InputError(
                f"{self.where} has a segmentation of size {shown(runs['size'])}, [height, width], "
                f"but its image has {width} x {height} pixels."
            )
        counts = _read_counts(runs["counts"]) if isinstance(runs["counts"], str) else runs["counts"]
        if counts is None or min(counts, default=0) < 0 or sum(counts) != height * width:
            raise InputError(f"{self.where} has run lengths that do not fill its image of {width} x {height} pixels.")
        return list(counts)


class NeedsExtra(InputError):
    """Masks cannot be read because a package is missing: of no use to look at more of them."""


def read_mask(entry: Entry) -> Mask | None:
    """The mask in the field `segmentation` of an annotation; None without it, or empty as tools for boxes leave it."""
    value = entry.get("segmentation")
    return None if value in (None, [], [[]], {}) else Mask(value, entry.where)


def _is_polygon(piece: Any) -> bool:
    if not isinstance(piece, list) or len(piece) % 2 or not set(map(type, piece)) <= {int, float}:
        return False
    return all(abs(number) < _EXACT for number in piece)  # which NaN is not


def _is_runs(piece: Any) -> bool:
    if not isinstance(piece, dict) or not isinstance(piece.get("size"), list):
        return False
    counts = piece.get("counts")
    return isinstance(counts, str) or (isinstance(counts, list) and set(map(type, counts)) <= {int})


def _read_counts(text: str) -> list[int] | None:
    """The run lengths in COCO's text, None where it is damaged.

    A character holds 5 bits, the low ones first, and whether more follow; from the third on, a number is the difference
    to the run length two before.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > _MAX_SHIFT:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return None if shift else counts


def _pycocotools(where: str) -> ModuleType:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise NeedsExtra(
            f"{where} has a mask of polygons, and pycocotools, which fills them, is not installed: "
            "run pip install 'wherein[eval]'."
        ) from error
    module: ModuleType = mask
    return module

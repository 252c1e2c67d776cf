"""From the maps of a few heads to boxes: smooth, add up, threshold, hull, box (CVPR'25, section 5 and appendix B.2).

Pure functions on float[K, R, C] maps; boxes are xyxy in cells of the map, cell (r, c) covering c to c + 1, r to r + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from wherein.methods.heads.criteria import NEIGHBOURS, Floats, above_mean, spatial_entropy

FLOOR = 0.1  # of what each cell would get of an even look: less than that is as good as none


@dataclass(frozen=True)
class Region:
    """One connected part of a map: its tight box float64[4] in cells, the area of its convex hull in cells, the share
    of the map that lies in it, and the cells bool[R, C] themselves."""

    box: NDArray[np.float64]
    hull: float
    share: float
    cells: NDArray[np.bool_]


def smooth(maps: Floats, sigma: float = 1.0, kernel: int = 7) -> Floats:
    """Each map convolved with a Gaussian of `sigma` cells, cut to `kernel` x `kernel` cells, the edge mirrored.

    The defaults are the published ones; a sigma of 0 leaves the maps as they are.
    """
    if sigma == 0:
        return maps
    return np.asarray(ndimage.gaussian_filter(maps, (0, sigma, sigma), radius=(0, kernel // 2, kernel // 2)))


def scaled(maps: Floats, how: str) -> Floats:
    """Each map on a scale of its own: "none", as published, where a head that looks harder weighs more; "sum", to a sum
    of one; "range", to 0..1."""
    if how == "none":
        return maps
    low = maps.min((-2, -1), keepdims=True) if how == "range" else np.zeros(1)
    span = np.ptp(maps, (-2, -1), keepdims=True) if how == "range" else maps.sum((-2, -1), keepdims=True)
    return np.asarray((maps - low) / np.maximum(span, 1e-12))


def enlarge(heat: Floats, zoom: int) -> Floats:
    """A map float[R, C] drawn `zoom` times as fine by bicubic interpolation, within its own range; 1 leaves it be."""
    if zoom == 1:
        return heat
    return np.asarray(ndimage.zoom(heat, zoom, order=3, grid_mode=True, mode="nearest").clip(heat.min(), heat.max()))


def binarise(heat: Floats, rule: str | float) -> NDArray[np.bool_]:
    """Cells that belong to the phrase, bool[R, C]: "mean", strictly above the map's mean, as published; "otsu", above
    the level that parts the values best (Otsu, 1979); a number, above that share of the map's range."""
    if rule == "mean":
        return above_mean(heat)
    low, high = float(heat.min()), float(heat.max())
    if high - low <= 1e-12:
        return np.zeros(heat.shape, bool)
    return np.asarray(heat >= (otsu(heat) if rule == "otsu" else low + float(rule) * (high - low)))


def otsu(heat: Floats, bins: int = 256) -> float:
    """The level between two groups of values whose means differ most, each weighted with its size (Otsu, 1979)."""
    counts, edges = np.histogram(heat, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[::-1][1:]
    low = np.cumsum(counts * centres)[:-1] / np.maximum(below, 1)
    high = np.cumsum((counts * centres)[::-1])[::-1][1:] / np.maximum(above, 1)
    apart = below * above * (low - high) ** 2
    return float(edges[1:-1][apart >= apart.max() * (1 - 1e-9)].mean())  # the middle of a gap, where there is one


def regions(heat: Floats, mask: NDArray[np.bool_]) -> list[Region]:
    """The 8-connected parts of bool[R, C] on a map float[R, C], the largest convex hull first, then the first found."""
    labels, _ = ndimage.label(mask, NEIGHBOURS)
    positive = np.maximum(heat, 0)
    total = max(float(positive.sum()), 1e-12)
    found = []
    for number, window in enumerate(ndimage.find_objects(labels), 1):
        cells = labels == number
        rows, columns = window
        box = np.array([columns.start, rows.start, columns.stop, rows.stop], np.float64)
        found.append(Region(box, hull_area(cells[window]), float(positive[cells].sum()) / total, cells))
    return sorted(found, key=lambda region: -region.hull)


def hull_area(cells: NDArray[np.bool_]) -> float:
    """Area in cells of the convex hull of the cells bool[R, C], which are unit squares; at least one of them is set."""
    y, x = np.nonzero(cells)
    corners = np.concatenate([np.stack([x + dx, y + dy], 1) for dx in (0, 1) for dy in (0, 1)])
    return float(ConvexHull(corners).volume)  # of a polygon, the area


def evidence(maps: Floats, references: Floats) -> Floats:
    """How much more a phrase is looked for than nothing in particular: float[P, K, R, C], in nats, at least 0.

    The logarithm of each map float[P, K, R, C] over the (geometric) mean of the maps float[Q, K, R, C] of reference
    phrases: a cell that heads look at whatever is asked, such as an attention sink, drops out, and what is left grows
    linearly with how well a cell's key fits the query.
    """
    floor = FLOOR / (maps.shape[-2] * maps.shape[-1])
    asked, anyway = np.log(maps + floor), np.log(references + floor).mean(0)
    return np.asarray(np.maximum(asked - anyway, 0))


def doubt(maps: Floats, seen: Floats) -> NDArray[np.float64]:
    """What speaks for and against a phrase's being in the image, float64[F]: figures of K heads' maps float[K, R, C]
    (as attention) and of what is `seen` in them, float[K, R, C] (as evidence).

    Mean attention to the image; logarithms of the strongest and of the mean evidence; how alike the heads' maps are
    (mean cosine with their sum); how scattered their sum is.
    """
    total = seen.sum(0)
    flat, whole = seen.reshape(len(seen), -1), total.ravel()
    length = np.linalg.norm(flat, axis=1) * np.linalg.norm(whole)
    alike = float(np.mean((flat @ whole) / np.maximum(length, 1e-12)))
    strength = [float(np.log(value / len(seen) + 1e-6)) for value in (total.max(), total.mean())]
    return np.array([float(maps.sum((-2, -1)).mean()), *strength, alike, float(spatial_entropy(total[None])[0])])

"""What tells a localisation head: how much it looks at the image, and how local that look is (CVPR'25, section 4).

Pure functions on attention maps float[..., R, C]: the share of a query's attention that each cell of the image gets,
not renormalised, so that a map's sum is the attention that the head pays to the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.floating]
ROUNDING = 1e-6  # of a map's mean: a constant map's float32 cells are not above it
NEIGHBOURS = np.ones((3, 3), bool)  # cells that touch at a corner belong together


def attention_sum(maps: Floats) -> Floats:
    """Criterion 1: the attention that goes to the image, float[...] of maps float[..., R, C] (equation 3)."""
    return np.asarray(maps.sum((-2, -1)))


def elbow(values: Floats) -> float:
    """The value at which the ascending curve of float[N] bends most: what a head must reach by criterion 1.

    The point farthest from the chord between the curve's ends, both axes scaled to 0..1 (Satopaa et al., 2011), so that
    neither the number of heads nor the unit of the values matters. Equal values have no bend: all of them reach it.
    Raises ValueError when there is none.
    """
    curve = np.sort(np.asarray(values, np.float64).ravel())
    if not len(curve):
        raise ValueError("there is no elbow in no values")
    span = curve[-1] - curve[0]
    if span == 0:
        return float(curve[0])
    distance = np.linspace(0, 1, len(curve)) - (curve - curve[0]) / span
    return float(curve[np.abs(distance).argmax()])


def spatial_entropy(maps: Floats) -> NDArray[np.float64]:
    """Criterion 2: how scattered each map is, float64[...] in nats; 0 for one component (equations 4 to 7).

    Cells above a map's mean form 8-connected components, and each counts by its share of these cells. A map without
    relief has no such cell: it is as scattered as a map of this size can be, ln(R C).
    """
    *outer, rows, columns = maps.shape
    flat = maps.reshape(-1, rows, columns)
    above = above_mean(flat)
    plane = np.zeros((3, 3, 3), bool)
    plane[1] = NEIGHBOURS  # components never reach from one map into the next
    labels, count = ndimage.label(above, plane)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    owner = np.zeros(count, np.int64)
    owner[labels[above] - 1] = np.nonzero(above)[0]
    share = areas / np.maximum(above.sum((1, 2)), 1)[owner]
    entropy = np.bincount(owner, -share * np.log(share), minlength=len(flat)).astype(np.float64)  # int of no component
    entropy[~above.any((1, 2))] = np.log(rows * columns)
    return np.abs(entropy).reshape(outer)  # a single component's is -0


def above_mean(maps: Floats) -> NDArray[np.bool_]:
    """Each map's cells strictly above its own mean, by more than rounding, bool[..., R, C]: its pseudo-mask."""
    mean = maps.mean((-2, -1), keepdims=True)
    return np.asarray(maps - mean > ROUNDING * np.abs(mean))


def agreement(maps: Floats, truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Intersection over union of each map's pseudo-mask with bool[R, C], float64[...]; 0 where both are empty."""
    mask = above_mean(maps)
    both, either = (mask & truth).sum((-2, -1)), (mask | truth).sum((-2, -1))
    return np.asarray(both / np.maximum(either, 1), np.float64)

"""Figures of localisation quality: pure functions on float64 arrays, one value per (truth box, prediction) pair.

The mean IoU, and the same of large objects only (PIN's mIoU and mIoU_L), of two pairs in an image of 224 x 224 pixels:

>>> truths = np.array([[0, 0, 100, 100], [0, 0, 10, 10]])
>>> answers = np.array([[50, 0, 150, 100], [0, 0, 10, 10]])
>>> iou = geometry.paired_iou(truths, answers)  # 5,000 of 15,000 pixels, and all of 100
>>> mean(iou), mean(iou[large(model_area(truths, np.full(2, 224.0), np.full(2, 224.0)))])
(0.6666666666666666, 0.3333333333333333)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wherein import geometry
from wherein.evaluation.bootstrap import numbered

MODEL_SIDE = 224
"""Side in pixels of the square model input at which PIN measures object sizes."""


def mean(values: NDArray[np.float64]) -> float | None:
    """Mean of float64[N]; None when there is nothing to average.

    >>> mean(np.array([0.0, 0.5, 1.0])), mean(np.array([]))
    (0.5, None)
    """
    return float(np.mean(values)) if len(values) else None


def precision(iou: NDArray[np.float64], threshold: float, strict: bool = False) -> float | None:
    """Share of float64[N] IoUs that reach the threshold (>=), or with `strict` exceed it; None when there are none.

    With one box a phrase it is what the papers call P@0.3 (PIN) and Acc@0.5 (referring expressions); `strict`, as
    PixelLLM's P@0.5 is.

    >>> precision(np.array([0.2, 0.5, 0.9]), 0.5)  # 0.5 itself counts
    0.6666666666666666
    >>> precision(np.array([0.5, 0.51]), 0.5, strict=True)
    0.5
    """
    return mean((iou > threshold if strict else iou >= threshold).astype(np.float64))


def mask_iou(
    intersections: NDArray[np.float64], unions: NDArray[np.float64], empty: float = 0.0
) -> NDArray[np.float64]:
    """IoU float64[N] of each pair of masks from their pixel counts; `empty` where both masks are.

    Its `mean` is the gIoU of the field. gRefCOCO (ReLA, CVPR'23) counts an empty answer to a phrase without a target as
    an IoU of 1: `empty=1`.

    >>> mask_iou(np.array([8.0, 2.0, 0.0]), np.array([16.0, 10.0, 0.0])).tolist()
    [0.5, 0.2, 0.0]
    """
    return np.where(unions > 0, intersections / np.maximum(unions, 1), empty)


def cumulative_iou(intersections: NDArray[np.float64], unions: NDArray[np.float64]) -> float | None:
    """The cIoU of the field: all float64[N] intersections over all unions, in pixels; None when there are none.

    Large objects weigh more in it than small ones.

    >>> cumulative_iou(np.array([8.0, 2.0]), np.array([16.0, 4.0]))
    0.5
    """
    return float(intersections.sum() / max(unions.sum(), 1)) if len(unions) else None


def model_area(
    boxes: NDArray[np.float64], widths: NDArray[np.float64], heights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Areas float64[N] of boxes float64[N, 4] (original pixels) after their image is squashed to the 224 square.

    >>> model_area(np.array([[0, 0, 100, 50]]), np.array([448.0]), np.array([224.0])).tolist()
    [2500.0]
    """
    return geometry.area(boxes) * (MODEL_SIDE / widths) * (MODEL_SIDE / heights)


def medium(area: NDArray[np.float64]) -> NDArray[np.bool_]:
    """bool[N]: objects of PIN's split M, 32^2 < area <= 96^2 at model scale.

    >>> medium(np.array([1024, 1025, 9216, 9217])).tolist()
    [False, True, True, False]
    """
    return (area > 32**2) & (area <= 96**2)


def large(area: NDArray[np.float64]) -> NDArray[np.bool_]:
    """bool[N]: objects of PIN's split L, area > 96^2 at model scale.

    >>> large(np.array([9216, 9217])).tolist()
    [False, True]
    """
    return area > 96**2


def best_of(iou: NDArray[np.float64], questions: Sequence[object]) -> NDArray[np.float64]:
    """float64[Q]: the best of float64[N] IoUs for each distinct question, questions in order of appearance.

    >>> best_of(np.array([0.2, 0.9, 0.5]), ["dog", "cat", "dog"]).tolist()
    [0.5, 0.9]
    """
    numbers = numbered(questions)
    best = np.zeros(numbers.max(initial=-1) + 1)
    np.maximum.at(best, numbers, iou)
    return best


def centres(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The middle float64[N, 2] (x, y) of boxes float64[N, 4], in their pixels.

    >>> centres(np.array([[0, 0, 10, 4]])).tolist()
    [[5.0, 2.0]]
    """
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def peaks(maps: NDArray[np.float32], width: int, height: int) -> NDArray[np.float64]:
    """The middle float64[N, 2] (x, y) of the highest cell of maps float[N, R, C] that are laid over whole images.

    `width`, `height`: of the images, in whose pixels the points are. Of equal cells the first in raster order counts.

    >>> peaks(np.array([[[0.1, 0.2], [0.9, 0.0]]]), width=100, height=60).tolist()
    [[25.0, 45.0]]
    """
    count, rows, columns = maps.shape
    row, column = np.unravel_index(maps.reshape(count, -1).argmax(axis=1), (rows, columns))
    return np.stack([(column + 0.5) * width / columns, (row + 0.5) * height / rows], axis=1)


def pointing(points: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[N], 1 where the point of float64[N, 2] lies in its box of float64[N, 4], edges included, else 0.

    Its `mean` is the accuracy of the pointing game (Zhang et al., 2016), without that game's tolerance of 15 pixels. A
    point that is not a number, of a missing answer, is a miss.

    >>> pointing(np.array([[5, 5], [5, 11], [np.nan, np.nan]]), np.array([[0, 0, 10, 10]] * 3)).tolist()
    [1.0, 0.0, 0.0]
    """
    inside = (points >= boxes[:, :2]) & (points <= boxes[:, 2:])
    return np.asarray(inside.all(axis=1), dtype=np.float64)


def no_target_accuracy(answered: NDArray[np.bool_], there: NDArray[np.bool_]) -> float | None:
    """gRefCOCO's N-acc: of the phrases that nothing in the image fits, the share that is answered absent.

    `answered` bool[N]: a box or mask was given; `there` bool[N]: there is a target. None where every phrase has one.
    Swapped signs give its T-acc, the share of phrases with a target that get an answer: `no_target_accuracy(~answered,
    ~there)`.

    >>> answered, there = np.array([True, False, True, True]), np.array([False, False, True, True])
    >>> no_target_accuracy(answered, there), no_target_accuracy(~answered, ~there)
    (0.5, 1.0)
    """
    return mean((~answered[~there]).astype(np.float64))


def per_category(iou: NDArray[np.float64], phrases: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """For each phrase, alphabetically: how many pairs it has (`n`), their mean IoU and their P@0.5.

    >>> per_category(np.array([0.2, 0.6, 1.0]), ["dog", "cat", "dog"])["dog"]
    {'n': 2, 'miou': 0.6, 'p@0.5': 0.5}
    """
    numbers, names = numbered(phrases), list(dict.fromkeys(phrases))
    counts = np.bincount(numbers, minlength=len(names))
    sums, hits = (np.bincount(numbers, weights=part, minlength=len(names)) for part in (iou, iou >= 0.5))
    return {
        names[i]: {"n": int(counts[i]), "miou": float(sums[i] / counts[i]), "p@0.5": float(hits[i] / counts[i])}
        for i in sorted(range(len(names)), key=names.__getitem__)
    }

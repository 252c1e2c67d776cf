"""Dense captioning's figure: boxes with captions against boxes with captions (Johnson et al., 2016; as released for
PixelLLM).

A prediction is right in a cell of a grid of thresholds if its box and its caption both agree far enough with the true
one; the average precisions of the 30 cells are averaged.

Notable choices:
- as released, a region is used up by the surest of the predictions that overlap it most, whatever that one says of it
- as released, a METEOR must exceed its threshold: at the first, 0, a caption still needs a word in common. What boxes
  alone are worth is `box_map`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wherein import geometry

IOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
METEORS = (0.0, 0.05, 0.10, 0.15, 0.20, 0.25)
RECALLS = np.arange(100) / 100  # where precision is read
SAME = 0.7  # IoU of true boxes that are one region, described several times
Score = Callable[[str, Sequence[str]], float]


@dataclass(frozen=True, eq=False)
class Described:
    """An image: K predicted boxes float64[K, 4], captions and scores float64[K], and the true boxes and captions."""

    boxes: NDArray[np.float64]
    captions: Sequence[str]
    scores: NDArray[np.float64]
    true_boxes: NDArray[np.float64]
    true_captions: Sequence[str]


def dense_map(images: Sequence[Described], meteor: Score) -> NDArray[np.float64]:
    """Average precisions float64[5, 6], by IoU and by METEOR; their mean is the mAP. `meteor` scores a caption against
    references, 0..1.
    """
    found, regions = _compared(images, meteor)
    return np.array([[_average_precision(found, regions, iou, words) for words in METEORS] for iou in IOUS])


def box_map(images: Sequence[Described]) -> NDArray[np.float64]:
    """The same float64[5] of the boxes alone, by IoU: every caption counts as right."""
    found, regions = _compared(images, lambda *_: 1.0)
    return np.array([_average_precision(found, regions, iou, 0.0) for iou in IOUS])


def merged(boxes: NDArray[np.float64], captions: Sequence[str]) -> tuple[NDArray[np.float64], list[list[str]]]:
    """True boxes that overlap by `SAME` or more made one, their mean, with the captions of all of them.

    The box that overlaps most others comes first, and takes them.
    """
    same = geometry.iou(boxes, boxes) >= SAME
    left, made, said = np.ones(len(boxes), bool), [], []
    while left.any():
        first = int(np.where(left, (same & left).sum(1), -1).argmax())
        group = np.flatnonzero(same[first] & left | (np.arange(len(boxes)) == first))
        made.append(boxes[group].mean(0))
        said.append([captions[i] for i in group.tolist()])
        left[group] = False
    return np.array(made).reshape(-1, 4), said


def _compared(images: Sequence[Described], meteor: Score) -> tuple[NDArray[np.float64], int]:
    """(IoU, METEOR) float64[N, 2] of every prediction with the true region it overlaps most, surest first, and how many
    regions there are. Both are -1 where it overlaps none, or a surer one has used the region up.
    """
    rows: list[tuple[float, float, float]] = []  # score, IoU, METEOR
    regions = 0
    for image in images:
        boxes, captions = merged(image.true_boxes, image.true_captions)
        overlaps, used = geometry.iou(image.boxes, boxes), set[int]()
        for i in np.argsort(-image.scores, kind="stable").tolist():
            best = int(overlaps[i].argmax()) if len(boxes) else -1
            if best < 0 or overlaps[i, best] <= 0 or best in used:
                rows.append((float(image.scores[i]), -1.0, -1.0))
                continue
            used.add(best)
            near = overlaps[i, best] >= IOUS[0]  # only then does it matter what was said
            said = meteor(image.captions[i], captions[best]) if near else -1.0
            rows.append((float(image.scores[i]), float(overlaps[i, best]), said))
        regions += len(boxes)
    rows.sort(key=lambda row: -row[0])
    return np.array([row[1:] for row in rows]).reshape(-1, 2), regions


def _average_precision(found: NDArray[np.float64], regions: int, iou: float, words: float) -> float:
    """The mean over `RECALLS` of the best precision at that recall or a higher one; `found` as of `_compared`."""
    if not regions or not len(found):
        return 0.0
    right = ((found[:, 0] >= iou) & (found[:, 1] > words)).cumsum()
    precision, recall = right / np.arange(1, len(found) + 1), right / regions
    return float(np.mean([precision[recall >= least].max(initial=0.0) for least in RECALLS]))

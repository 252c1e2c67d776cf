"""Dense captioning's figure: boxes with captions against boxes with captions (Johnson et al., 2016; as released for
PixelLLM), and the strict precision of referring boxes.

A prediction is right in a cell of a grid of thresholds if its box and its caption both agree far enough with the true
one; the average precisions of the 30 cells are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wherein import geometry

IOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
METEORS = (0.0, 0.05, 0.10, 0.15, 0.20, 0.25)
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

    Each prediction is compared with the true region that it overlaps most, and a region is found once: by the surest of
    the predictions that are right about it.
    """
    rows: list[tuple[float, float, float, int]] = []  # score, IoU, METEOR, region
    regions = 0
    for image in images:
        boxes, captions = merged(image.true_boxes, image.true_captions)
        overlaps = geometry.iou(image.boxes, boxes)
        for i, caption in enumerate(image.captions):
            best = int(overlaps[i].argmax()) if len(boxes) else -1
            overlap = float(overlaps[i, best]) if len(boxes) else 0.0
            said = meteor(caption, captions[best]) if overlap >= IOUS[0] else -1.0
            rows.append((float(image.scores[i]), overlap, said, regions + best))
        regions += len(boxes)
    rows.sort(key=lambda row: -row[0])
    return np.array([[_average_precision(rows, regions, iou, words) for words in METEORS] for iou in IOUS])


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


def _average_precision(
    rows: Sequence[tuple[float, float, float, int]], regions: int, iou: float, words: float
) -> float:
    """The area under precision over recall; `rows` surest first."""
    if not regions:
        return 0.0
    found: set[int] = set()
    hits = np.zeros(len(rows))
    for i, (_, overlap, said, region) in enumerate(rows):
        if overlap >= iou and said >= words and region not in found:
            found.add(region)
            hits[i] = 1
    right = hits.cumsum()
    precision = right / np.arange(1, len(rows) + 1)
    best_behind = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best_behind * hits).sum() / regions)


def precision_above(ious: NDArray[np.float64], threshold: float = 0.5) -> float | None:
    """PixelLLM's P@0.5: the share of IoUs float64[N] strictly above the threshold; None when there are none.

    >>> precision_above(np.array([0.5, 0.51]))
    0.5
    """
    return float((ious > threshold).mean()) if len(ious) else None

"""Heads read on labelled images: which draw the best boxes together, and what tells that a phrase is not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from wherein.calibration import fit_logistic, roc_auc
from wherein.geometry import paired_iou
from wherein.methods.heads.canvas import Canvas
from wherein.methods.heads.config import HeadsConfig
from wherein.methods.heads.maps import Maps
from wherein.methods.heads.method import Heads, instances
from wherein.methods.heads.reading import doubt
from wherein.methods.heads.selection import Head
from wherein.synth.negatives import as_many_absent
from wherein.training.pairs import Pairs
from wherein.training.store import Labelled
from wherein.vlm.base import FrozenVLM

CANDIDATES = 12  # heads that agree best with the boxes, from which a set is put together
CALIBRATED = 200  # images on which that is done, and "absent" calibrated


def jointly(
    vlm: FrozenVLM, pairs: Pairs, settings: HeadsConfig, order: Sequence[Head], top: int, seed: int
) -> tuple[Head, ...]:
    """The order with `top` heads in front whose maps draw the best boxes together, found one after the other.

    Heads that agree well with the boxes often do so on the same phrases: the best of them are not the best set.
    """
    candidates = tuple(order[:CANDIDATES])
    method = Heads(vlm, config=replace(settings, heads=candidates))
    asked = []
    for image in _some(pairs, seed):
        canvas, _, seen = method.look(image.image, [phrase for phrase, _ in image.objects])
        asked += [(canvas, maps, box) for maps, (_, box) in zip(seen, image.objects, strict=True)]

    def overlap(heads: Sequence[Head]) -> float:
        """Mean IoU of the boxes that some of the candidates draw."""
        chosen = [candidates.index(head) for head in heads]
        return float(np.mean([_overlap(method, canvas, maps[chosen], box) for canvas, maps, box in asked]))

    front: tuple[Head, ...] = ()
    while len(front) < min(top, len(candidates)):
        left = [head for head in candidates if head not in front]
        front += (max(left, key=lambda head: overlap((*front, head))),)
    return front + tuple(head for head in order if head not in front)


def _some(pairs: Pairs, seed: int) -> Iterator[Labelled]:
    """At most `CALIBRATED` of the images, drawn at random."""
    drawn, console = np.random.default_rng(seed).permutation(pairs.images)[:CALIBRATED], Console(stderr=True)
    for i in track(drawn, "reading heads", console=console, disable=not console.is_terminal):
        yield pairs.source(int(i))


def _overlap(method: Heads, canvas: Canvas, seen: Maps, box: NDArray[np.float64]) -> float:
    """IoU of a box float64[4] with the one drawn from what maps float32[K, R, C] show."""
    heat = method.heat(seen)
    best = instances(heat, method.config.threshold, canvas.shown(heat.shape))[0]
    return float(paired_iou(canvas.to_image(best.box[None], heat.shape), box[None])[0])


def calibrate(
    vlm: FrozenVLM, pairs: Pairs, config: HeadsConfig, seed: int
) -> tuple[HeadsConfig, dict[str, float | None]]:
    """Settings with the weights of `doubt` for "absent", and the figures: box IoU, and how well absence is told.

    Logistic regression on as many phrases that are in an image as phrases of other images that are not; the area under
    its ROC curve is that of a fit to half of the images on the other half, None where there is nothing to fit.
    A phrase counts as not in the image where names and categories do not tell that it may be (`is_absent`). Of real
    pairs many such are true of both images ("left guy" in RefCOCO): "absent" is then told too often, and the area comes
    out too small.
    """
    rng, method = np.random.default_rng(seed), Heads(vlm, config=config)
    figures, missing, fitted, overlaps = [], [], [], []
    for number, image in enumerate(_some(pairs, seed)):
        here = [phrase for phrase, _ in image.objects]
        away = as_many_absent(pairs.names, here, rng)
        canvas, maps, seen = method.look(image.image, here + away)
        figures += [doubt(own, heat) for own, heat in zip(maps, seen, strict=True)]
        missing += [False] * len(here) + [True] * len(away)
        fitted += [number % 2 == 0] * len(here + away)
        overlaps += [
            _overlap(method, canvas, *each) for each in zip(seen, (box for _, box in image.objects), strict=False)
        ]
    x, y, half = np.array(figures), np.array(missing), np.array(fitted)
    weights = tuple(_fit(x, y).tolist()) if y.any() and not y.all() else ()
    told = roc_auc(_logits(_fit(x[half], y[half]), x[~half]), y[~half]) if y[half].any() and y[~half].any() else None
    return replace(config, absent=weights), {"miou": float(np.mean(overlaps)), "absent_roc_auc": told}


def _fit(x: NDArray[np.float64], y: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logistic regression: float64[F + 1], a weight for each figure of float64[S, F] in its unit, and a constant."""
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-9)
    w = fit_logistic((x - mean) / scale, y, np.zeros(x.shape[1] + 1), ridge=1e-3)
    return np.append(w[:-1] / scale, w[-1] - (w[:-1] * mean / scale).sum())


def _logits(weights: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(x @ weights[:-1] + weights[-1])

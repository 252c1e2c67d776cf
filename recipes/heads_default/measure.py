"""Figures of localisation heads that no box shows; the last line of stdout is JSON.

pointing: the share of labelled objects whose box holds the peak of a head's map. `best` is the head that points best,
chosen on every other image and measured on the rest; `best_of_all` is chosen and measured on the same (too good);
`chosen` the mean over the heads that are used, `together` the peak of their sum
absent: area under the ROC curve of the absent probability, phrases that are in an image against as many of other images
that are not; `balanced_accuracy` at the shipped threshold
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from wherein import images
from wherein.calibration import roc_auc
from wherein.evaluation import select
from wherein.methods import create
from wherein.methods.heads import Heads
from wherein.vlm import load_vlm


def peak(heat: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Whether the peak of each map float[..., R, C] is among cells bool[R, C]: bool[...]."""
    return inside.ravel()[heat.reshape(*heat.shape[:-2], -1).argmax(-1)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="annotations in COCO format")
    parser.add_argument("--images", type=Path, required=True, help="the folder of their images")
    parser.add_argument("--model", default="default")
    parser.add_argument("--adapter", help="a file of heads, else what ships for the model")
    given = parser.parse_args()
    samples, rng = select("pin", given.data, given.images), np.random.default_rng(0)
    names = sorted({phrase for sample in samples for phrase in sample.phrases()})
    method = create("heads", load_vlm(given.model), given.adapter)
    assert isinstance(method, Heads)
    pointing, joint, even, doubts, missing = [], [], [], [], []
    for number, sample in enumerate(track(samples, "images", console=Console(stderr=True))):
        image, here = images.load(sample.path), sample.phrases()
        away = [str(name) for name in rng.permutation(names) if name not in here][: len(here)]
        canvas, maps, seen = method.look(image, here + away, every_head=True)
        layers, heads = zip(*method.config.heads, strict=True)
        for phrase, box, *_ in sample.objects:
            found, inside = seen[here.index(phrase)], canvas.inside(box)
            pointing.append(peak(found, inside))
            joint.append(peak(found[layers, heads].sum(0), inside))
            even.append(number % 2 == 0)
        for own, read in zip(maps[:, layers, heads], seen[:, layers, heads], strict=True):
            doubts.append(method.absent_probability(own, read) or 0.0)
        missing += [False] * len(here) + [True] * len(away)
    points, half, absent = np.array(pointing), np.array(even), np.array(missing)
    best = np.unravel_index(points[half].mean(0).argmax(), points.shape[1:])
    told = np.array(doubts) >= 0.5
    figures = {
        "n": len(points),
        "pointing": {
            "best": round(float(points[~half][:, best[0], best[1]].mean()), 3),
            "best_head": [int(i) for i in best],
            "best_of_all": round(float(points.mean(0).max()), 3),
            "chosen": round(float(points[:, list(layers), list(heads)].mean()), 3),
            "together": round(float(np.mean(joint)), 3),
        },
        "absent": {
            "roc_auc": round(roc_auc(np.array(doubts), absent), 3),
            "balanced_accuracy": round(float((told[absent].mean() + (~told[~absent]).mean()) / 2), 3),
            "phrases": len(absent),
        },
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

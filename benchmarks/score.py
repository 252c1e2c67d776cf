"""How long does it take to turn answers into figures? No model is loaded; the last line of stdout is JSON.

outcomes: `report.summarise` on made-up outcomes, from records to intervals and paired tests, bootstrap included; median
seconds of several calls after one that does not count
boxes, images, methods: labelled boxes of each method, the images they are in, and how many methods answered
resamples: bootstrap draws, one set of them for all intervals and tests over the same images
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median

import numpy as np

from wherein import geometry
from wherein.evaluation import Outcome, Record, bootstrap, summarise

NAMES = 80  # phrases, as many as COCO has categories


def outcomes(method: str, boxes: int, images: int, masks: bool, seed: int) -> list[Outcome]:
    """Made-up records of one method: true boxes are the same for every method, answers are the truth with noise."""
    truths, noise = np.random.default_rng(0), np.random.default_rng(seed)
    corners = np.sort(truths.uniform(0, 480, (boxes, 2, 2)), axis=1).reshape(boxes, 4)
    owners, phrases = np.sort(truths.integers(images, size=boxes)), truths.integers(NAMES, size=boxes)
    answers = np.clip(corners + noise.normal(0, 40, corners.shape), 0, 480)
    scores, iou = noise.random(boxes), geometry.paired_iou(corners, answers)
    records: list[list[Record]] = [[] for _ in range(images)]
    for i, owner in enumerate(owners.tolist()):
        overlap = (int(1000 * iou[i]), 1000) if masks else None
        records[owner].append(
            Record(
                f"thing {phrases[i]}",
                tuple(corners[i].tolist()),
                tuple(answers[i].tolist()),
                float(scores[i]),
                None,
                float(iou[i]),
                overlap,
            )
        )
    return [Outcome(f"{i}.jpg", 480, 480, method, 0.1, tuple(own)) for i, own in enumerate(records)]


def main() -> None:
    """Parse, make up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=14_000, help="default: seven boxes an image, as in COCO")
    parser.add_argument("--methods", type=int, default=1)
    parser.add_argument("--masks", action="store_true", help="every box has a mask, too")
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    made = [
        outcome
        for number in range(given.methods)
        for outcome in outcomes(f"method {number}", given.boxes, given.images, given.masks, number + 1)
    ]

    def work() -> float:
        began = time.perf_counter()
        summarise(made, protocol="made up", model="none", score_kinds={"method 0": "token_probability"})
        return time.perf_counter() - began

    work()
    figures = {"seconds": round(median(work() for _ in range(given.times)), 3), "resamples": bootstrap.RESAMPLES}
    print(json.dumps({**figures, **{name: getattr(given, name) for name in ("boxes", "images", "methods", "masks")}}))


if __name__ == "__main__":
    main()

"""The constant box of the method `centre`: the one with the best mean IoU on 20,000 composites of the paper's preset.

The object is the one PIN would be asked about, one of each composite at random. Prints the box in fractions.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from wherein.geometry import iou
from wherein.synth import PAPER, ObjectBank, compose, is_held_out

SIDE, COUNT, SEED = 100, 20_000, 0


def main() -> None:
    """Compose, search, print."""
    rng, bank = np.random.default_rng(SEED), ObjectBank.load().without(is_held_out)
    background = np.zeros((SIDE, SIDE, 3), np.uint8)
    boxes = []
    for _ in range(COUNT):
        objects = compose(background, bank, rng, PAPER).objects
        boxes.append(objects[rng.integers(len(objects))].box)
    grid = np.arange(0, 51, 2)
    candidates = np.array([(x, y, SIDE - x, SIDE - y) for x, y in product(grid, grid) if x < 50 and y < 50], float)
    means = iou(np.array(boxes), candidates).mean(0)
    print((candidates[means.argmax()] / SIDE).tolist(), f"mean IoU {means.max():.3f}")


if __name__ == "__main__":
    main()

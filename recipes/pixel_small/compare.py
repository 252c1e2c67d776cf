"""The small model beside other methods, asked for the same phrases on held-out composites; see README.md.

The composites are those that `train.py` measures on. Every method is asked for each object by one phrase that means it
alone, "a mug on the left". Intervals and tests are of P@0.5, over images. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from composed import SEED, stores
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from wherein.errors import WhereinError
from wherein.evaluation import bootstrap
from wherein.evaluation.metrics import precision
from wherein.geometry import paired_iou
from wherein.methods import create
from wherein.training.pixel import asked_of, described
from wherein.training.store import FeatureStore
from wherein.vlm import load_vlm

METHODS = ("centre", "pixel", "pin", "heads")


def asked(store: FeatureStore, methods: Sequence[Any], side: int) -> tuple[list[int], NDArray[np.float64]]:
    """The image of each phrase, and its IoU float64[methods, phrases] by every method, 0 for one without a box."""
    images, ious = list[int](), list[list[float]]()
    for i in track(range(store.count), "images", console=Console(stderr=True)):
        image = described(store.objects[i], side)
        things, phrases = asked_of(image, SEED, i)
        if not phrases:
            continue
        (pixels,) = store.images([i])
        found = [method.ground(pixels, phrases, absent=False) for method in methods]
        boxes = np.array([[one.boxes[0] if len(one.boxes) else np.zeros(4) for one in row] for row in found])
        for place, thing in enumerate(things):
            images.append(i)
            ious.append(paired_iou(boxes[:, place], np.tile(image.boxes[thing], (len(methods), 1))).tolist())
    return images, np.array(ious).T


def compare(images: Sequence[int], ious: NDArray[np.float64], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """mIoU and P@0.5 (strictly above) of each method, and how much P@0.5 is above that of the first one."""
    found, base = {}, None
    for name, row in zip(names, ious, strict=True):
        right = (row > 0.5).astype(np.float64)
        sums, counts = bootstrap.resampled([right, np.ones(len(right))], images, seed=0)
        draws, share = sums / counts, precision(row, 0.5, strict=True)
        figures = {"miou": float(row.mean()), "p50": share, "ci95": list(bootstrap.interval(draws))}
        if base is None:
            base = draws, share
        else:
            compared = bootstrap.comparison(share - base[1], draws - base[0])
            figures[f"minus {names[0]}"] = [compared.difference, *compared.interval, compared.p]
        found[name] = figures
    return found


def main() -> None:
    """Ask, print a table, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, help="of the method pixel; default: the one in the package")
    parser.add_argument("--objects", type=Path, help="folder of further cut-outs")
    parser.add_argument("--backgrounds", type=Path, help="folder of background photographs")
    parser.add_argument("--cache", type=Path, required=True, help="folder of encoded composites")
    given = parser.parse_args()
    vlm = load_vlm()
    store = stores(vlm, given.cache, 0, given.objects, given.backgrounds).held_out.build()
    methods = [create(name, vlm, given.adapter if name == "pixel" else None) for name in METHODS]
    images, ious = asked(store, methods, vlm.size[0])
    figures = compare(images, ious, METHODS)
    print(f"{len(images)} phrases on {len(set(images))} composites")
    for name, row in figures.items():
        print(f"{name:7} mIoU {row['miou']:.3f}  P@0.5 {row['p50']:.3f} ({row['ci95'][0]:.3f} to {row['ci95'][1]:.3f})")
    print(json.dumps({"phrases": len(images), "images": len(set(images)), **figures}))


if __name__ == "__main__":
    try:
        main()
    except WhereinError as error:
        raise SystemExit(f"error: {error}") from None

"""How well a pixel-aligned adapter describes places on labelled photographs; the last line of stdout is JSON.

Every labelled box is described, and scored by BLEU, ROUGE-L, CIDEr and METEOR against all of its phrases. Dense
captions are compared with all boxes and phrases: `dense_map` over 30 thresholds of IoU and METEOR, `found_map` over
those of IoU alone. Published figures are of Visual Genome's regions and of RefCOCOg. The scorers are an extra,
wherein[captions], and need Java.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from wherein import images
from wherein.data import Sample, open_dataset
from wherein.errors import WhereinError
from wherein.evaluation.captions import Meteor, score_captions
from wherein.methods.pixel import Pixel
from wherein.methods.pixel.dense import Described, Score, dense_map
from wherein.vlm import load_vlm

LONG = 100  # boxes that dense captioning gives, however unsure, as published


def described(method: Pixel, samples: Iterable[Sample]) -> tuple[list[str], list[list[str]], list[Described]]:
    """Captions of all labelled boxes, the phrases of each, and for each image its dense captions beside its labels."""
    said, true, dense = list[str](), list[list[str]](), list[Described]()
    for sample in samples:
        if not sample.objects:
            continue
        seen = method.see(images.load(sample.path))
        phrases: dict[tuple[float, ...], list[str]] = {}
        for thing in sample.objects:
            phrases.setdefault(tuple(thing.box.tolist()), []).append(thing.phrase)
        said += [caption.text for caption in method.reader.captions_of(seen, list(phrases))]
        true += phrases.values()
        found = method.reader.dense(seen, most=LONG, least=0.0) if method.proposes else []
        dense.append(
            Described(
                np.array([region.place for region in found]).reshape(-1, 4),
                [region.caption.text for region in found],
                np.array([region.score for region in found]),
                np.stack([thing.box for thing in sample.objects]),
                [thing.phrase for thing in sample.objects],
            )
        )
    return said, true, dense


def figures(method: Pixel, samples: Iterable[Sample], meteor: Score) -> dict[str, float]:
    """Every figure, and how many boxes and images they are of."""
    said, true, dense = described(method, samples)
    grid = dense_map(dense, meteor) if method.proposes else None
    both = {} if grid is None else {"dense_map": float(grid.mean()), "found_map": float(grid[:, 0].mean())}
    return {"images": len(dense), "boxes": len(said), **score_captions(said, true), **both}


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="folder that train.py wrote")
    parser.add_argument("--data", type=Path, required=True, help="a data set that `wherein eval` reads")
    parser.add_argument("--images", type=Path, help="the folder of its images")
    parser.add_argument("--split", help="the part of it, where it has several")
    parser.add_argument("--device", default="auto", help="cpu, cuda ...; auto takes the fastest there is")
    given = parser.parse_args()
    meteor = Meteor()  # first: what is missing is told at once
    samples = list(open_dataset(given.data, given.images, "auto", given.split).samples())
    method = Pixel(load_vlm("default", given.device), given.adapter)
    found = figures(method, track(samples, "images", console=Console(stderr=True)), meteor)
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    try:
        main()
    except WhereinError as error:
        raise SystemExit(f"error: {error}") from None

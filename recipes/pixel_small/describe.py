"""How well a pixel-aligned model describes places, or traces captions, on photographs; the last line of stdout is JSON.

Every labelled box is described, and scored by BLEU, ROUGE-L, CIDEr and METEOR against all of its phrases. Dense
captions are compared with all boxes and phrases: `dense_map` over 30 thresholds of IoU and METEOR, `found_map` over
those of IoU alone. Published figures are of Visual Genome's regions and of RefCOCOg.
With --narratives, each image is captioned instead: the caption is scored against all of the image's narratives, and the
places of its words against the mouse of each, by LBM with windows 0 and 1 (lower is better; means over narratives).
The scorers are an extra, wherein[captions], and need Java.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from wherein import images
from wherein.data import Narrative, Sample, open_dataset, read_narratives
from wherein.errors import InputError, WhereinError
from wherein.evaluation.captions import Meteor, score_captions
from wherein.evaluation.dense import Described, Score, box_map, dense_map
from wherein.evaluation.lbm import lbm
from wherein.methods.pixel import Pixel
from wherein.training.lessons import words_of
from wherein.vlm import load_vlm

Track = Callable[[Iterable[Any]], Iterable[Any]]
LONG = 100  # boxes that dense captioning gives, however unsure, as published


def described(method: Pixel, samples: Iterable[Sample]) -> tuple[list[str], list[list[str]], list[Described]]:
    """Captions of all labelled boxes, the phrases of each, and for each image its dense captions beside its labels."""
    said, true, dense = list[str](), list[list[str]](), list[Described]()
    for sample in samples:
        things = [thing for thing in sample.objects if thing.has_area]
        if not things:
            continue
        seen = method.see(sample.boxed())
        phrases: dict[tuple[float, ...], list[str]] = {}
        for thing in things:
            phrases.setdefault(tuple(thing.box.tolist()), []).append(thing.phrase)
        said += [caption.text for caption in method.reader.captions_of(seen, list(phrases))]
        true += phrases.values()
        found = method.reader.dense(seen, most=LONG, least=0.0) if method.proposes else []
        dense.append(
            Described(
                np.array([region.place for region in found]).reshape(-1, 4),
                [region.caption.text for region in found],
                np.array([region.score for region in found]),
                np.stack([thing.box for thing in things]),
                [thing.phrase for thing in things],
            )
        )
    return said, true, dense


def traced(method: Pixel, narratives: Iterable[Narrative], track: Track) -> dict[str, float]:
    """The figures of captions with places, and how many images and traces they are of."""
    said, true = list[str](), list[list[str]]()
    costs: dict[int, list[float]] = {0: [], 1: []}
    by_image: dict[Path, list[Narrative]] = {}
    for narrative in narratives:
        by_image.setdefault(narrative.path, []).append(narrative)
    for path, own in track(by_image.items()):
        image = images.load(path)
        caption = method.caption(image)
        sides = np.array([*image.shape[1::-1]] * 2)
        places = np.array([word.place for word in caption.words if word.box is not None]).reshape(-1, 4) / sides
        said.append(caption.text)
        true.append([one.caption for one in own])
        for one in own:
            mouse = words_of(one, *sides[:2].tolist())
            for window, found in costs.items():
                cost = lbm(places, np.array([box for *_, box in mouse]).reshape(-1, 4) / sides, window)
                found += [] if cost is None else [cost]
    both = {f"lbm{window}": float(np.mean(found)) for window, found in costs.items() if found}
    return {"images": len(said), "traces": len(costs[0]), **score_captions(said, true), **both}


def figures(method: Pixel, samples: Iterable[Sample], meteor: Score) -> dict[str, float]:
    """Every figure, and how many boxes and images they are of."""
    said, true, dense = described(method, samples)
    found = {"images": len(dense), "boxes": len(said), **score_captions(said, true)}
    if method.proposes:
        found["dense_map"] = float(dense_map(dense, meteor).mean())
        found["found_map"] = float(box_map(dense).mean())
    return found


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", help="folder that train.py wrote; default: the one in the package")
    parser.add_argument("--data", type=Path, help="a data set that `wherein eval` reads")
    parser.add_argument("--narratives", type=Path, help="Localized Narratives instead: a file of JSON lines")
    parser.add_argument("--images", type=Path, help="the folder of its images")
    parser.add_argument("--split", help="the part of it, where it has several")
    parser.add_argument("--device", default="auto", help="cpu, cuda ...; auto takes the fastest there is")
    given = parser.parse_args()
    if (given.data is None) == (given.narratives is None) or (given.narratives and not given.images):
        raise InputError("Give --data, or --narratives with --images.")
    meteor = Meteor()  # first: what is missing is told at once
    bar: Track = partial(track, description="images", console=Console(stderr=True))
    if given.narratives:
        told = list(read_narratives(given.narratives, given.images))
        found = traced(Pixel(load_vlm("default", given.device), given.adapter), told, bar)
    else:
        samples = list(open_dataset(given.data, given.images, "auto", given.split).samples())
        found = figures(Pixel(load_vlm("default", given.device), given.adapter), bar(samples), meteor)
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    try:
        main()
    except WhereinError as error:
        raise SystemExit(f"error: {error}") from None

"""How many composites does one core make a second? The last line of stdout is JSON; nothing is downloaded.

memory: `Scenes[i]` of the preset, image and phrases, nothing kept
written: the same into a shard: JPEG, JSON, tar, checksum
plain: a loop in Pillow alone that pastes as many cut-outs, resized at random, on the same backgrounds: no boxes, no
bound on overlaps, no names
All are composites a second of processor time, so a busy machine does not slow them; medians over turns in one process,
after one that does not count. `memory_to_plain` is the share of the plain loop's speed that is left.
together: written by one process and by `--workers` at a time, composites a second of the processor time of all of them;
linear in cores as far as the second figure is as high as the first
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from wherein.errors import InputError
from wherein.synth import Plan, Scenes
from wherein.synth.compose import picture_of
from wherein.synth.scene import PRESETS
from wherein.synth.shards import write_shard
from wherein.synth.workers import on_this_machine


def rate(work: Callable[[], object], count: int) -> float:
    """Composites a second of processor time."""
    began = time.process_time()
    work()
    return count / (time.process_time() - began)


def plain(scenes: Scenes, count: int, seed: int) -> None:
    """The plain loop."""
    rng, side = np.random.default_rng(seed), scenes.side
    for _ in range(count):
        canvas = Image.fromarray(scenes.grounds.sample(rng, side))
        for order in range(int(rng.integers(1, 4))):
            cutout = picture_of(scenes.bank[int(rng.integers(len(scenes.bank)))])
            scale = rng.uniform((0.3, 0.2, 0.1)[order], 1) * side / max(cutout.size)
            width, height = (max(1, round(length * scale)) for length in cutout.size)
            resized = cutout.resize((width, height), Image.Resampling.BILINEAR)
            corner = int(rng.integers(side - width + 1)), int(rng.integers(side - height + 1))
            canvas.paste(resized, corner, resized)
        np.asarray(canvas)


def measure(plan: Plan, turns: int, folder: Path) -> dict[str, float]:
    """Medians of all three at one size."""
    scenes = plan.open()
    works: dict[str, Callable[[int], object]] = {
        "memory": lambda turn: [scenes[index] and None for index in plan.indices(turn)],
        "written": lambda turn: write_shard(plan, folder, turn),
        "plain": lambda turn: plain(scenes, plan.per_shard, turn),
    }
    rounds = [
        {name: rate(partial(work, turn), plan.per_shard) for name, work in works.items()} for turn in range(turns + 1)
    ][1:]
    figures = {name: median(found[name] for found in rounds) for name in works}
    shard = (folder / "shard-000001.tar").stat().st_size
    return {
        **{name: round(figure, 1) for name, figure in figures.items()},
        "memory_to_plain": round(median(found["memory"] / found["plain"] for found in rounds), 3),
        "bytes_per_composite": round(shard / plan.per_shard),
    }


def spent(plan: Plan, shards: int, workers: int) -> float:
    """Seconds of processor time for some of the shards, of this process and of all workers together."""
    began = _processor()
    with tempfile.TemporaryDirectory() as folder:
        for _ in on_this_machine(plan, Path(folder), range(shards), workers):
            pass
    return _processor() - began


def _processor() -> float:
    mine, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


def together(plan: Plan, workers: int) -> float:
    """Written by so many processes at the same time; how they start and fill their caches does not count."""
    few, more = 4 * workers, 10 * workers
    return (more - few) * plan.per_shard / (spent(plan, more, workers) - spent(plan, few, workers))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="paper")
    parser.add_argument("--sides", type=int, nargs="+", default=[224, 448], help="pixels")
    parser.add_argument("--objects", type=Path, help="a folder of cut-outs, one sub-folder a name")
    parser.add_argument("--backgrounds", type=Path, help="a folder of pictures")
    parser.add_argument("--image", choices=("jpg", "webp"), default="jpg")
    parser.add_argument("--count", type=int, default=500, help="composites a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="processes to measure together, beside one")
    args = parser.parse_args()
    figures: dict[str, object] = {}
    try:
        for side in args.sides:
            plan = Plan(
                args.count * (args.turns + 1),
                args.preset,
                side,
                objects=args.objects,
                backgrounds=args.backgrounds,
                per_shard=args.count,
                image=args.image,
            )
            with tempfile.TemporaryDirectory() as folder:
                figures[str(side)] = measure(plan, args.turns, Path(folder))
            if args.workers > 1:
                some = replace(plan, count=args.count * 10 * args.workers)
                pairs = [(together(some, 1), together(some, args.workers)) for _ in range(args.turns)]
                alone, all_of_them = (round(median(rates), 1) for rates in zip(*pairs, strict=True))
                figures[f"{side} together"] = {"1": alone, str(args.workers): all_of_them}
    except InputError as error:
        sys.exit(str(error))
    memory = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
    print(json.dumps({**figures, "preset": args.preset, "image": args.image, "peak_rss_mib": memory}))


if __name__ == "__main__":
    main()

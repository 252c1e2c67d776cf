"""How fast is a PIN trained? The last line of stdout is JSON.

Composites are encoded into a temporary store, as `wherein train pin` does, and the default recipe takes some steps on
them. A sample is one asked phrase (each object of a composite, and one thing that is not there).

encode_per_second: composites made and encoded · steps_per_second, samples_per_second: of training steps on encoded
composites, past the curriculum's cells and after warm-up · samples_per_step: their mean number.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import torch
from torch import Tensor

from wherein.methods.pin import Pin
from wherein.synth import AUGMENTED, Backgrounds, ObjectBank, is_held_out
from wherein.training.boxes import RECIPES, BoxTask, Recipe
from wherein.training.sources import composed
from wherein.training.store import FeatureStore
from wherein.training.trainer import TrainConfig, fit
from wherein.vlm.branches import Branch
from wherein.vlm.default import DefaultVLM

WARM_UP = 2  # steps


class Timed(BoxTask):
    """A PIN's training that notes when each step began and how many phrases it asked."""

    def __init__(self, vlm: DefaultVLM, recipe: Recipe, store: FeatureStore, names: tuple[str, ...]) -> None:
        super().__init__(vlm, Pin.begin(vlm), recipe, store, store, names, seed=0)
        self.began: list[float] = []
        self.asked: list[int] = []

    def loss(self, step: int, steps: int) -> Tensor:
        """As in training."""
        self.began.append(time.perf_counter())
        self.asked.append(0)
        return super().loss(step, steps)

    def _branches(self, *asked: object) -> list[Branch]:
        branches = super()._branches(*asked)  # type: ignore[arg-type]
        self.asked[-1] += len(branches)
        return branches

    def evaluate(self, step: int, folder: Path, count: int = 0) -> dict[str, float]:
        """The run is over: measuring boxes is no part of a step."""
        self.began.append(time.perf_counter())
        return {}


def measure(vlm: DefaultVLM, steps: int, images: int, folder: Path) -> dict[str, float]:
    """Encode, train, time."""
    recipe = RECIPES["default"]
    bank = ObjectBank.load().without(is_held_out)
    config = replace(AUGMENTED, min_objects=recipe.min_objects)
    source = composed(bank, Backgrounds.load(), vlm.size[0], 0, config)
    began = time.perf_counter()
    store = FeatureStore(folder, vlm, source, images, {}).build()
    encoded = time.perf_counter() - began
    task = Timed(vlm, recipe, store, bank.names)
    total = steps + WARM_UP
    fit(task, TrainConfig(total, Pin.rates["default"], evaluate_every=total, save_every=total), folder / "run")
    times = [b - a for a, b in zip(task.began, task.began[1:], strict=False)][WARM_UP:]
    samples = mean(task.asked[WARM_UP:])
    return {
        "encode_per_second": images / encoded,
        "steps_per_second": 1 / median(times),
        "samples_per_second": samples / median(times),
        "samples_per_step": samples,
    }


def main() -> None:
    """Parse, load, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--untrained", action="store_true", help="without weights of ours: the same speed")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: what is faster here")
    args = parser.parse_args()
    vlm = DefaultVLM(trained=not args.untrained, dtype=args.dtype and getattr(torch, args.dtype))
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(vlm, args.steps, args.images, Path(folder))
    rounded = {name: round(value, 3) for name, value in figures.items()}
    print(json.dumps({**rounded, "batch": RECIPES["default"].batch, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()

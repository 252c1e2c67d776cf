"""The images of the caption training: pasted composites, encoded once, and composites made of features alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import captions
import numpy as np
import torch
from torch import Tensor

from wherein.synth.backgrounds import Backgrounds
from wherein.synth.compose import AUGMENTED, compose
from wherein.synth.objects import ObjectBank
from wherein.vlm.default import DefaultVLM

PLAIN = 24 * 16  # encoded backgrounds for `prototype`
Thing = tuple[str, str | None]  # name, dominant colour


class Composites:
    """`count` pasted composites as features in `folder`, made on first use, and as many prototypes as one asks for.

    An image is (x_v bfloat16[N, D_v], things, largest first). The size of what was pasted orders the names;
    nothing else of where things are is kept.
    """

    def __init__(
        self, vlm: DefaultVLM, bank: ObjectBank, grounds: Backgrounds, count: int, seed: int, folder: Path
    ) -> None:
        self.vlm = vlm
        self.things = _encode(vlm, bank, grounds, count, seed, folder / "captions")
        stored: Any = np.load(folder / "captions.npy", mmap_mode="r")
        self.features = torch.from_numpy(stored).view(torch.bfloat16)
        rng = np.random.default_rng(seed + 1)
        batches = [[grounds.sample(rng, vlm.size[0]) for _ in range(16)] for _ in range(PLAIN // 16)]
        self.plain = torch.cat([vlm.features(vlm.prepare(batch)[0]) for batch in batches])

    def pasted(self, index: int) -> tuple[Tensor, list[Thing]]:
        """Pasted composite `index`."""
        return self.features[index], self.things[index]

    def prototype(self, rng: np.random.Generator) -> tuple[Tensor, list[Thing]]:
        """A background whose features lean, in one to three patches, towards rows of the encoder's classifier.

        They keep in the connector what the encoder knows of photographs: the bank is clip art and emoji.
        """
        rows, columns = self.vlm.grid
        weight, x = self.vlm.encoder.classifier.weight, self.plain[rng.integers(len(self.plain))].clone()
        y, xs = np.mgrid[0:rows, 0:columns]
        found: list[tuple[int, str]] = []
        taken = np.zeros((rows, columns), bool)
        while not found:
            for _ in range(rng.integers(1, 4)):
                c = int(rng.integers(len(self.vlm.classes)))
                cy, cx, ry, rx = rng.uniform(0, rows), rng.uniform(0, columns), rng.uniform(1, 4), rng.uniform(1, 4)
                cells = (((y - cy) / ry) ** 2 + ((xs - cx) / rx) ** 2 <= 1) & ~taken
                if cells.sum() < 2:
                    continue
                taken |= cells
                rise = torch.from_numpy(rng.uniform(0.3, 1.0, cells.sum()) * rng.uniform(10, 26)).to(x.dtype)
                x[torch.from_numpy(cells.reshape(-1))] += rise[:, None] * weight[c] / weight[c].float().pow(2).sum()
                found.append((int(cells.sum()), self.vlm.classes[c][rng.integers(2)]))
        names = dict.fromkeys(name for _, name in sorted(found, reverse=True))
        return x.clamp(0, 6), [(name, None) for name in names]


def _encode(
    vlm: DefaultVLM, bank: ObjectBank, grounds: Backgrounds, count: int, seed: int, path: Path
) -> list[list[Thing]]:
    """Compose and encode `count` images; features as int16 views of bfloat16 in `path`.npy, their things in .json."""
    facts = path.with_suffix(".json")
    if facts.exists():
        return [[(name, colour) for name, colour in image] for image in json.loads(facts.read_text())]
    rng, side = np.random.default_rng(seed), vlm.size[0]
    shape = (count, vlm.grid[0] * vlm.grid[1], vlm.feature_dim)
    store = np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", np.int16, shape)  # type: ignore[no-untyped-call]
    things: list[list[Thing]] = []
    for start in range(0, count, 16):
        batch = [compose(grounds.sample(rng, side), bank, rng, AUGMENTED) for _ in range(min(16, count - start))]
        pixels, _ = vlm.prepare([made.image for made in batch])
        store[start : start + len(batch)] = vlm.features(pixels).view(torch.int16).numpy()
        for made in batch:
            order = sorted(made.objects, key=lambda o: -float((o.box[2] - o.box[0]) * (o.box[3] - o.box[1])))
            things.append([(o.name, captions.colour(bank[o.cutout].rgba)) for o in order])
        if start % 800 == 0:
            print(f"encoded {start}/{count}", flush=True)
    facts.write_text(json.dumps(things))
    return things

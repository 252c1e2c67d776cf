"""The images of the caption training: pasted composites, encoded once, and composites made of features alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import captions
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from wherein.errors import InputError
from wherein.journal import Journal
from wherein.synth.backgrounds import Backgrounds
from wherein.synth.compose import AUGMENTED, compose
from wherein.synth.objects import ObjectBank
from wherein.training.sources import drawn_from
from wherein.vlm.default import DefaultVLM
from wherein.vlm.efficientnet import normalise

PLAIN = 24 * 16  # encoded backgrounds for `prototype`
UNSEEN = 6  # of so many pasted composites, one is kept from the words' stage
SHOWN = 0.5  # of an image's cells are trained on at a time, drawn anew: half the cost, nothing is learnt less well
PHOTOGRAPHS = 0.4  # of the composites are of photographed things alone, of which the bank has fewer than of drawn ones
BATCH = 16
Thing = tuple[str, str | None]  # name, dominant colour


class Pasted(Dataset[tuple[NDArray[np.uint8], list[Thing]]]):
    """Composite i, a function of the seed and i: uint8[S, S, 3], and its things, largest first."""

    def __init__(self, bank: ObjectBank, grounds: Backgrounds, side: int, count: int, seed: int) -> None:
        self.grounds, self.side, self.count, self.seed = grounds, side, count, seed
        photographs = bank.keep(lambda cutout: cutout.photographic)
        self.banks = (bank, photographs if len(photographs) else bank)
        self._colours: dict[tuple[bool, int], str | None] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], list[Thing]]:
        rng = np.random.default_rng([self.seed, index])
        photographed = bool(rng.random() < PHOTOGRAPHS)
        made = compose(self.grounds.sample(rng, self.side), self.banks[photographed], rng, AUGMENTED)
        order = sorted(made.objects, key=lambda o: -float((o.box[2] - o.box[0]) * (o.box[3] - o.box[1])))
        return made.image, [(thing.name, self._colour(photographed, thing.cutout)) for thing in order]

    def _colour(self, photographed: bool, cutout: int) -> str | None:
        key = (photographed, cutout)
        if key not in self._colours:
            self._colours[key] = captions.colour(self.banks[photographed][cutout].rgba)
        return self._colours[key]


class Composites:
    """`count` pasted composites as features in `folder`, made on first use, and as many prototypes as one asks for.

    An image is (x_v bfloat16[N, D_v], things, largest first). The size of what was pasted orders the names;
    nothing else of where things are is kept. If there are `words` to be learnt, it is on those in `known`, and what
    comes behind is learnt on the others: of images that it was trained on, the connector is surer than of any that it
    will meet. Raises InputError for a folder with those of other settings.
    """

    def __init__(
        self,
        vlm: DefaultVLM,
        bank: ObjectBank,
        grounds: Backgrounds,
        count: int,
        seed: int,
        folder: Path,
        words: bool,
    ) -> None:
        self.vlm = vlm
        settings = {"seed": seed, **drawn_from(bank, grounds)}
        self.things = _encode(vlm, Pasted(bank, grounds, vlm.size[0], count, seed), settings, folder / "captions")
        self.known = range(count - max(1, count // UNSEEN) if words else 0)
        stored: Any = np.load(folder / "captions.npy", mmap_mode="c")
        self.features = torch.from_numpy(stored).view(torch.bfloat16)
        rng = np.random.default_rng(seed + 1)
        batches = [[grounds.sample(rng, vlm.size[0]) for _ in range(BATCH)] for _ in range(PLAIN // BATCH)]
        self.plain = torch.cat([vlm.features(vlm.prepare(batch)[0]).to(torch.bfloat16).cpu() for batch in batches])
        self._classifier = vlm.encoder.classifier.weight.detach().to(torch.bfloat16).cpu()

    def pasted(self, index: int) -> tuple[Tensor, list[Thing]]:
        """Pasted composite `index`."""
        return self.features[index], self.things[index]

    def unseen(self, rng: np.random.Generator) -> tuple[Tensor, list[Thing]]:
        """A pasted composite that is not `known`."""
        return self.pasted(int(rng.integers(len(self.known), len(self.things))))

    def prototype(self, rng: np.random.Generator) -> tuple[Tensor, list[Thing]]:
        """A background whose features lean, in one to three patches, towards rows of the encoder's classifier.

        They keep in the connector what the encoder knows of photographs: the bank is clip art and emoji.
        """
        rows, columns = self.vlm.grid
        weight, x = self._classifier, self.plain[rng.integers(len(self.plain))].clone()
        y, xs = np.mgrid[0:rows, 0:columns]
        found: list[tuple[int, str]] = []
        taken = np.zeros((rows, columns), bool)
        while not found:
            for _ in range(rng.integers(1, 4)):
                c = int(rng.integers(len(self.vlm.classes)))
                cy, cx = rng.uniform(0, rows), rng.uniform(0, columns)
                ry, rx = rng.uniform(0.1, 0.4) * rows, rng.uniform(0.1, 0.4) * columns
                cells = (((y - cy) / ry) ** 2 + ((xs - cx) / rx) ** 2 <= 1) & ~taken
                if cells.sum() < 2:
                    continue
                taken |= cells
                rise = torch.from_numpy(rng.uniform(0.3, 1.0, cells.sum()) * rng.uniform(10, 26)).to(x.dtype)
                x[torch.from_numpy(cells.reshape(-1))] += rise[:, None] * weight[c] / weight[c].float().pow(2).sum()
                found.append((int(cells.sum()), self.vlm.classes[c][rng.integers(2)]))
        names = dict.fromkeys(name for _, name in sorted(found, reverse=True))
        return x.clamp(0, 6), [(name, None) for name in names]


def shown(rng: np.random.Generator, cells: int) -> Tensor:
    """Which of so many cells of an image are trained on this time, int64[n], in order."""
    return torch.from_numpy(np.sort(rng.permutation(cells)[: round(SHOWN * cells)]))


def workers() -> int:
    """Processes that make images or tokens beside this one: all cores but two or three where there are more.

    They take turns, and their number is odd: where every second step is dearer, each has its share of those.
    """
    spare = (os.cpu_count() or 1) - 2
    return (spare - 1) | 1 if spare > 0 else 0


def _encode(vlm: DefaultVLM, pasted: Pasted, settings: dict[str, Any], path: Path) -> list[list[Thing]]:
    """Compose and encode all images; features as int16 views of bfloat16 in `path`.npy, their things in .jsonl.

    A killed call goes on behind the last batch that it wrote. `settings`: what else an image hangs on. Raises
    InputError where the features of what is done are gone.
    """
    shape = (len(pasted), vlm.grid[0] * vlm.grid[1], vlm.feature_dim)
    journal = Journal(path.with_suffix(".jsonl"), {**settings, "shape": shape})
    things = [[(name, colour) for name, colour in image] for row in journal.rows for image in row["things"]]
    features, rest = path.with_suffix(".npy"), Subset(pasted, range(len(things), len(pasted)))
    if things and not features.is_file():
        raise InputError(f"{journal.path} lists images that are encoded, but {features} is gone: remove the list, too.")
    store: Any = np.lib.format.open_memmap(features, "r+" if things else "w+", np.int16, shape)  # type: ignore[no-untyped-call]
    for images, named in DataLoader(rest, BATCH, num_workers=workers(), collate_fn=_together):
        x_v = vlm.features(normalise(images.to(vlm.device)))
        end = len(things) + len(named)
        store[len(things) : end] = x_v.to(torch.bfloat16).cpu().view(torch.int16).numpy()
        journal.add({"things": named})
        things += named
        if end % 800 == 0:
            print(f"encoded {end}/{len(pasted)}", flush=True)
    return things


def _together(batch: Sequence[tuple[NDArray[np.uint8], list[Thing]]]) -> tuple[Tensor, list[list[Thing]]]:
    """A batch as uint8[B, S, S, 3], which goes from process to process without being copied, and what is on it."""
    return torch.from_numpy(np.stack([image for image, _ in batch])), [things for _, things in batch]

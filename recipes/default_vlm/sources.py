"""Images as the connector's tokens, sorted by what the connector itself takes them for: raw material of look-ups."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from composites import Composites
from torch import Tensor

SURE, OWN, REST = 0.15, 0.4, 0.2  # of a connector's map of a thing: least peak; a cell of it, and one that is not


@dataclass(frozen=True)
class Source:
    """An image as the connector's tokens: (name, float[*, D_t]) of each thing it recognises, and the rest."""

    things: list[tuple[str, Tensor]]
    rest: Tensor
    names: set[str]


class Sources:
    """Composites, pasted and prototypes, as the connector reads them now: it is copied, to the CPU."""

    def __init__(self, images: Composites) -> None:
        self.images, self.vlm = images, images.vlm
        self.connector = copy.deepcopy(self.vlm.connector).cpu().requires_grad_(False)

    @torch.no_grad()
    def draw(self, rng: np.random.Generator, count: int) -> list[Source]:
        """Up to `count` images in which the connector recognises something."""
        images = self.images
        batch = [images.prototype(rng) if i % 2 else images.unseen(rng) for i in range(count)]
        x_v = torch.stack([features for features, _ in batch]).to(self.connector.style.weight.dtype)
        weights = self.connector.weights(x_v)
        tokens, weights = self.connector.say(x_v, weights).float(), weights.float()
        found = []
        for cells, own_words, (_, named) in zip(tokens, weights, batch, strict=True):
            names = [name for name, _ in named]
            maps = torch.stack([own_words[:, self.vlm.entries(name)].sum(-1) for name in names])
            peaks = maps.amax(1, keepdim=True)
            rest = (maps < REST * peaks).all(0)
            own = (maps >= OWN * peaks) & (maps == maps.amax(0)) & (peaks > SURE)
            things = [(name, cells[where]) for name, where in zip(names, own, strict=True) if where.any()]
            if things and rest.any():
                found.append(Source(things, cells[rest], set(names)))
        return found

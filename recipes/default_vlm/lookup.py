"""Second stage: teach the language model to look a named thing up among the image tokens, without any image.

Tokens are made up: a random layout of things, each a few cells that lean towards the embedding of its name, as the
connector's do, and carry the embeddings of one to three arbitrary English words besides. The sentence asks for them by
the thing's name (" a camel that is" -> "frozen, lending"; commoner words first), lists the names as a caption does, or
denies a thing that is not there.
Words are drawn at random, so nothing is learnt of what things are like, only how to read them: the frozen model's
attention then finds a named thing in one step. No digit and no position word is ever a target, and a step costs a third
of one on images: few cells, many questions.
"""

from __future__ import annotations

import re

import captions
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wherein.vlm.default import DefaultVLM
from wherein.vlm.packing import Branch, Packed, pack

CELLS, BATCH, THINGS, VALUES = 40, 16, 6, (1, 1, 2, 3)
TEMPLATES = (" {} that is", " {} that is", " {} in", " {} with", " {} called", " {} of", " {} which looks", " {}")
POSITION = re.compile(
    r"box(es)?|bounding|point\w*|coordinates?|position\w*|locat\w+|place[ds]?|where\w*|regions?|areas?"
    r"|left|right|top|bottom|above|below|cent(er|re)\w*|middle|corners?|edges?|sides?|upper|lower|up|down"
    r"|near\w*|next|beside|behind|front|between|under|over|inside|outside|around|far|foreground|background"
    r"|north\w*|south\w*|east\w*|west\w*|rows?|columns?|pixels?|zero|one|two|three|four|five|six|seven|eight|nine|ten"
    r"|half|first|second|third|last"
)


class Lookup:
    """Made-up images in the embedding space of `vlm`'s language model, and the questions about them."""

    def __init__(self, vlm: DefaultVLM) -> None:
        table = vlm.language_model.get_input_embeddings().weight.detach()
        self.vlm, self.names = vlm, vlm.connector.names.float()
        self.blank = vlm.connector.blank.float()
        pieces = vlm.tokenizer.get_vocab()
        words = sorted((i, p[1:]) for p, i in pieces.items() if re.fullmatch(r"Ġ[a-z]{3,12}", p))
        self.words = [word for _, word in words if not POSITION.fullmatch(word)][:6000]
        values = table[[pieces[f"Ġ{word}"] for word in self.words]].float()
        self.values = values - values.mean(0)
        self.fillers = np.array([i for i, p in ((i, vlm.tokenizer.decode([i])) for i in pieces.values()) if plain(p)])
        self.shared = vlm.encode(vlm.shared_prompt)

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Packed]:
        """Tokens bfloat16[B, CELLS, D_t] and the packed questions about them, cells at their raster positions."""
        made = [self._image(rng) for _ in range(BATCH)]
        cells = torch.from_numpy(np.stack([cells for _, cells, _ in made]))
        packed = pack(self.vlm.grid[0] * self.vlm.grid[1], self.shared, [rows for _, _, rows in made], cells)
        return torch.stack([x for x, _, _ in made]).to(torch.bfloat16), packed

    def _image(self, rng: np.random.Generator) -> tuple[Tensor, NDArray[np.int64], list[Branch]]:
        owner = layout(rng, *self.vlm.grid, things=int(rng.integers(1, THINGS + 1)))
        spread = rng.permutation(len(owner))
        mine, rest = spread[owner[spread] >= 0], spread[owner[spread] < 0]
        cells = np.sort(np.concatenate([mine[: CELLS - 10], rest, mine[CELLS - 10 :]])[:CELLS])
        owner = owner[cells]
        kept = [int(k) for k in np.unique(owner) if k >= 0]
        names = rng.choice(len(self.names), len(kept) + 1, replace=False)
        values = [np.sort(rng.integers(len(self.words), size=rng.choice(VALUES))) for _ in kept]
        x = self._cells(rng, owner, dict(zip(kept, zip(names, values, strict=False), strict=True)))
        order = sorted(range(len(kept)), key=lambda i: -(owner == kept[i]).sum())
        rows = [self._question(rng, int(names[i]), values[i]) for i in order]
        texts = [self.vlm.vocabulary[names[i]] for i in order]
        if len(texts) <= 3:
            rows.append(captions.caption(self.vlm.encode, texts, self.vlm.tokenizer.eos_token_id))
        rows.append(captions.presence(self.vlm.encode, texts[rng.integers(len(texts))], True))
        rows.append(captions.presence(self.vlm.encode, self.vlm.vocabulary[names[-1]], False))
        return x, cells, rows

    def _cells(
        self, rng: np.random.Generator, owner: NDArray[np.int64], things: dict[int, tuple[int, NDArray[np.int64]]]
    ) -> Tensor:
        """What a connector could make of the layout: names with doubt, strays, an offset and noise."""
        n, width = len(owner), self.names.shape[1]
        noise = rng.normal(size=(n, width)) * rng.uniform(0.2, 1.2) + rng.normal(size=width) * rng.uniform(0, 0.8)
        x = self.blank + torch.from_numpy(noise / width**0.5).float()
        stray = torch.from_numpy(np.where(rng.random(n) < 0.3, rng.uniform(0, 0.4, n), 0)).float()
        x += stray[:, None] * self.names[torch.from_numpy(rng.integers(len(self.names), size=n))]
        for k, (name, values) in things.items():
            mine = torch.from_numpy(owner == k)
            sure = torch.from_numpy(
                np.clip(rng.uniform(0.3, 1) + rng.normal(0, 0.15, int(mine.sum())), 0.05, 1)
            ).float()
            doubt = self.names[int(rng.integers(len(self.names)))] * float(rng.uniform(0, 0.6))
            x[mine] += sure[:, None] * self.names[name] + (1 - sure[:, None]) * doubt
            for value in values:
                x[mine] += float(rng.uniform(0.35, 1.0)) * self.values[value]
        return x

    def _question(self, rng: np.random.Generator, name: int, values: NDArray[np.int64]) -> Branch:
        """Half the time a sentence; else up to six arbitrary tokens before each word, which the answer must outlive."""
        thing, words = captions.with_article(self.vlm.vocabulary[name]), [self.words[value] for value in values]
        if rng.random() < 0.5:
            template = TEMPLATES[rng.integers(len(TEMPLATES))]
            target = self.vlm.encode(" " + ", ".join(words))
            weights = tuple(float(i % 2 == 0) for i in range(len(target)))
            return Branch(tuple(self.vlm.encode(template.format(thing))), tuple(target), weights)
        gaps = [[int(token) for token in rng.choice(self.fillers, rng.integers(7))] for _ in words]
        context = (*self.vlm.encode(f" {thing}"), *gaps[0])
        text: list[tuple[int, float]] = []
        for word, gap in zip(words, [[], *gaps[1:]], strict=True):
            text += [(token, 0.0) for token in gap] + [(self.vlm.encode(f" {word}")[0], 1.0)]
        return Branch(context, tuple(token for token, _ in text), tuple(weight for _, weight in text))


def plain(piece: str) -> bool:
    """No digit, no bracket and no word of place in a token's text: it may stand between a name and its words."""
    return bool(piece) and not re.search(r"[\d\[\](){}<>%|]", piece) and not POSITION.fullmatch(piece.strip().lower())


def layout(rng: np.random.Generator, rows: int, columns: int, things: int) -> NDArray[np.int64]:
    """Which of up to `things` elliptic patches owns each cell, int64[rows * columns]; -1 for none."""
    y, x = np.mgrid[0:rows, 0:columns]
    owner = np.full((rows, columns), -1)
    for k in range(things):
        cy, cx, ry, rx = rng.uniform(0, rows), rng.uniform(0, columns), rng.uniform(0.7, 3), rng.uniform(0.7, 3)
        patch = (((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1) & (owner < 0)
        if not patch.any():
            patch = np.zeros_like(patch)
            patch.flat[rng.choice(np.flatnonzero(owner.ravel() < 0))] = True
        owner[patch] = k
    return owner.ravel()

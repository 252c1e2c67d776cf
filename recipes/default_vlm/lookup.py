"""First stage: teach the language model to look a named thing up among the image tokens, without any image.

Tokens are made up: things of a few cells each. A cell leans towards the embedding of its thing's name, as the
connector's do, or, where the thing is called by its kind (a dog), of some name of that kind (a beagle). It carries the
embeddings of up to two arbitrary English words; in most images each cell, of a thing or not, also carries two numbers
of one digit, the first as a digit, the second as a number word. A sentence asks for a thing by what it is called: for
its words (" a camel that is" -> "frozen, lending", commoner ones first), for the range of its cells' numbers (" a camel
ranges" -> "from1 and3 to4 and6.": the smallest of both kinds, then the largest; "not" where there are no numbers, or no
camel), for whether it is there, or for all names, as a caption does.
All is drawn at random and the cells are shuffled, so nothing is learnt of what things are like or of where a token
stands, only how to read tokens by name. No word of place is ever a target.
"""

from __future__ import annotations

import re

import captions
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wherein.boxtext import CODECS
from wherein.methods.pin.method import REFUSAL
from wherein.methods.pin.numbers import number_codes
from wherein.vlm.default import DefaultVLM
from wherein.vlm.packing import Branch, Packed, pack

CELLS, BATCH, THINGS, WORDS = 40, 16, 5, (0, 1, 1, 2)
NUMBERED = 0.85  # share of the images whose cells carry numbers
OF_A_KIND = 0.5  # share of the things that are called by their kind
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
        index = {name: i for i, name in enumerate(vlm.vocabulary)}
        self.kinds: dict[str, list[int]] = {}
        for name, kind in vlm.classes:
            self.kinds.setdefault(kind, []).append(index[name])
        pieces = vlm.tokenizer.get_vocab()
        words = sorted((i, p[1:]) for p, i in pieces.items() if re.fullmatch(r"Ġ[a-z]{3,12}", p))
        self.words = [word for _, word in words if not POSITION.fullmatch(word)][:6000]
        values = table[[pieces[f"Ġ{word}"] for word in self.words]].float()
        self.values = values - values.mean(0)
        self.first, self.second = number_codes(vlm)
        self.shared = vlm.encode(vlm.shared_prompt)

    def batch(self, rng: np.random.Generator, alike: float) -> tuple[Tensor, Packed]:
        """Tokens bfloat16[B, CELLS, D_t] and the packed questions about them, cells at positions drawn at random.

        `alike`: share of the images in which all cells of a thing carry the same two numbers, which is learnt sooner.
        """
        whole = self.vlm.grid[0] * self.vlm.grid[1]
        made = [self._image(rng, alike) for _ in range(BATCH)]
        cells = torch.from_numpy(np.sort(np.stack([rng.permutation(whole)[:CELLS] for _ in made]), axis=1))
        packed = pack(whole, self.shared, [rows for _, rows in made], cells)
        return torch.stack([x for x, _ in made]).to(torch.bfloat16), packed

    def _image(self, rng: np.random.Generator, alike: float) -> tuple[Tensor, list[Branch]]:
        owner = layout(rng, 10, 10, things=int(rng.integers(1, THINGS + 1)))
        spread = rng.permutation(len(owner))
        mine, rest = spread[owner[spread] >= 0], spread[owner[spread] < 0]
        drawn = rng.permutation(np.concatenate([mine[: CELLS - 10], rest, mine[CELLS - 10 :]])[:CELLS])
        owner, numbers = owner[drawn], np.stack([drawn % 10, drawn // 10], axis=1)
        kept = [int(k) for k in np.unique(owner) if k >= 0]
        things = self._things(rng, len(kept) + 1)
        absent, called = things[-1][0], {k: text for k, (text, _) in zip(kept, things, strict=False)}
        names = {k: shown for k, (_, shown) in zip(kept, things, strict=False)}
        words = {k: np.sort(rng.integers(len(self.words), size=rng.choice(WORDS))) for k in kept}
        x = self._cells(rng, owner, names, words)
        rows = [self._words(rng, called[k], words[k]) for k in kept if len(words[k])][:2]
        if rng.random() < NUMBERED:
            if rng.random() < alike:
                for k in kept:
                    numbers[owner == k] = rng.choice(numbers[owner == k])
            loud = rng.uniform(0.5, 1.2)
            x += float(loud) * (self.first[numbers[:, 0]] + self.second[numbers[:, 1]])
            rows += [self._range(called[k], numbers[owner == k]) for k in kept]
        else:
            rows += [self._refusal(called[k]) for k in kept]
        rows += [self._refusal(absent), captions.presence(self.vlm.encode, absent, False)]
        texts = [called[k] for k in sorted(kept, key=lambda k: -(owner == k).sum())]
        rows.append(captions.presence(self.vlm.encode, texts[rng.integers(len(texts))], True))
        if len(texts) <= 3:
            rows.append(captions.caption(self.vlm.encode, texts, self.vlm.tokenizer.eos_token_id))
        return x, rows

    def _things(self, rng: np.random.Generator, count: int) -> list[tuple[str, NDArray[np.int64]]]:
        """(what it is called, the names its cells may show) of `count` things that have none of these in common."""
        kinds, taken, found = list(self.kinds), set[str](), list[tuple[str, NDArray[np.int64]]]()
        while len(found) < count:
            if rng.random() < OF_A_KIND:
                called = kinds[rng.integers(len(kinds))]
                shown = rng.permutation(self.kinds[called])[: rng.integers(1, 5)]
            else:
                shown = rng.integers(len(self.names), size=1)
                called = self.vlm.vocabulary[shown[0]]
            own = {called, *(kind for kind, names in self.kinds.items() if set(names) & set(shown.tolist()))}
            if not own & taken:
                taken |= own
                found.append((called, shown))
        return found

    def _cells(
        self,
        rng: np.random.Generator,
        owner: NDArray[np.int64],
        names: dict[int, NDArray[np.int64]],
        words: dict[int, NDArray[np.int64]],
    ) -> Tensor:
        """What a connector could make of the things: names with doubt, strays, an offset and noise."""
        n, width = len(owner), self.names.shape[1]
        noise = rng.normal(size=(n, width)) * rng.uniform(0.2, 1.2) + rng.normal(size=width) * rng.uniform(0, 0.8)
        x = self.blank + torch.from_numpy(noise / width**0.5).float()
        stray = torch.from_numpy(np.where(rng.random(n) < 0.3, rng.uniform(0, 0.4, n), 0)).float()
        x += stray[:, None] * self.names[torch.from_numpy(rng.integers(len(self.names), size=n))]
        for k, shown in names.items():
            mine = torch.from_numpy(owner == k)
            own = self.names[torch.from_numpy(rng.choice(shown, int(mine.sum())))]
            sure = torch.from_numpy(np.clip(rng.uniform(0.4, 1) + rng.normal(0, 0.15, int(mine.sum())), 0.2, 1)).float()
            doubt = self.names[int(rng.integers(len(self.names)))] * float(rng.uniform(0, 0.6))
            x[mine] += sure[:, None] * own + (1 - sure[:, None]) * doubt
            for value in words[k]:
                x[mine] += float(rng.uniform(0.35, 1.0)) * self.values[value]
        return x

    def _asked(self, called: str) -> tuple[int, ...]:
        phrase = captions.with_article(called)
        return tuple(self.vlm.encode(self.vlm.locate_prompt.format(phrase=phrase)))

    def _words(self, rng: np.random.Generator, called: str, values: NDArray[np.int64]) -> Branch:
        template = TEMPLATES[rng.integers(len(TEMPLATES))]
        context = self.vlm.encode(template.format(captions.with_article(called)))
        target = self.vlm.encode(" " + ", ".join(self.words[value] for value in values))
        return Branch(tuple(context), tuple(target), tuple(float(i % 2 == 0) for i in range(len(target))))

    def _refusal(self, called: str) -> Branch:
        return Branch(self._asked(called), tuple(self.vlm.encode(REFUSAL)))

    def _range(self, called: str, numbers: NDArray[np.int64]) -> Branch:
        """The smallest and the largest numbers of the thing's cells int64[n, 2], in the words of the model's codec."""
        frame, ends = CODECS[self.vlm.codec].frame, [*numbers.min(0), *numbers.max(0), ""]
        target = self.vlm.encode(" " + "".join(f"{text}{number}" for text, number in zip(frame, ends, strict=True)))
        digits = [self.vlm.tokenizer.decode([token]).isdigit() for token in target]
        return Branch(self._asked(called), tuple(target), (1.0, *(1.0 if digit else 0.1 for digit in digits[1:])))


def layout(rng: np.random.Generator, rows: int, columns: int, things: int) -> NDArray[np.int64]:
    """Which of up to `things` elliptic patches owns each cell, int64[rows * columns]; -1 for none."""
    y, x = np.mgrid[0:rows, 0:columns]
    owner = np.full((rows, columns), -1)
    for k in range(things):
        cy, cx, ry, rx = rng.uniform(0, rows), rng.uniform(0, columns), rng.uniform(0.7, 4.5), rng.uniform(0.7, 4.5)
        patch = (((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1) & (owner < 0)
        if not patch.any():
            patch = np.zeros_like(patch)
            patch.flat[rng.choice(np.flatnonzero(owner.ravel() < 0))] = True
        owner[patch] = k
    return owner.ravel()

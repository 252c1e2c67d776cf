"""First stage: teach the language model to look a named thing up among the image tokens, without any image.

Tokens are made up: things of a few cells each. A cell leans towards the words of its thing, as the connector's do: a
name, or a class and its kind; where a thing is called by its kind (a dog) its cells show some classes of that kind. It
carries the embeddings of up to two arbitrary English words; in most images each cell, of a thing or not, also carries
two numbers of one digit, the first as a digit, the second as a number word. A sentence asks for a thing by what it is
called: for its words (" a camel that is" -> "frozen, lending", commoner ones first), for the range of its cells'
numbers (" a camel ranges" -> "from1 and3 to4 and6.": the smallest of both kinds, then the largest; "not" where there
are no numbers, or no camel), for whether it is there, or for all names, as a caption does.
In the caption stage, half of these images are made of the connector's tokens instead: the cells of a composite, each
thing's being those that the connector itself takes for it.
What is asked is drawn at random, numbers follow a layout drawn at random, and the cells are shuffled: nothing is learnt
of where a token stands, only how to read tokens by name. No word of place is ever a target.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import captions
import numpy as np
import torch
from asked import Asked
from numpy.typing import NDArray
from sources import Source, Sources
from torch import Tensor

from wherein.boxtext import CODECS
from wherein.methods.pin.numbers import number_codes
from wherein.vlm.branches import Branch
from wherein.vlm.default import DefaultVLM

CELLS, THINGS, WORDS = 40, 5, (0, 1, 1, 2)
LOUDEST = 2.0  # a thing's words in its cells, times a word's own length
NUMBERED = 0.7  # share of the images whose cells carry numbers
OF_A_KIND = 0.5  # share of the things that are called by their kind
TEMPLATES = (" {} that is", " {} that is", " {} in", " {} with", " {} called", " {} of", " {} which looks", " {}")
POSITION = re.compile(
    r"box(es)?|bounding|point\w*|coordinates?|position\w*|locat\w+|place[ds]?|where\w*|regions?|areas?"
    r"|left|right|top|bottom|above|below|cent(er|re)\w*|middle|corners?|edges?|sides?|upper|lower|up|down"
    r"|near\w*|next|beside|behind|front|between|under|over|inside|outside|around|far|foreground|background"
    r"|north\w*|south\w*|east\w*|west\w*|rows?|columns?|pixels?|zero|one|two|three|four|five|six|seven|eight|nine|ten"
    r"|half|first|second|third|last"
)


@dataclass(frozen=True)
class Scene:
    """The cells of an image and what can be asked about them: `called` and `values` by thing, largest things first."""

    x: Tensor  # float[CELLS, D_t]
    called: dict[int, str]
    values: dict[int, NDArray[np.int64]]  # indices into Lookup.words
    absent: str


class Lookup:
    """Made-up images in the embedding space of `vlm`'s language model, and the questions about them."""

    def __init__(self, vlm: DefaultVLM) -> None:
        table = vlm.language_model.get_input_embeddings().weight.detach()
        self.vlm, self.shows = vlm, vlm.connector.words.float().cpu()
        self.blank = vlm.connector.blank.float().cpu()
        self.kinds: dict[str, list[int]] = {}
        for i, (_, kind) in enumerate(vlm.classes):
            self.kinds.setdefault(kind, []).append(i)
        pieces = vlm.tokenizer.get_vocab()
        words = sorted((i, p[1:]) for p, i in pieces.items() if re.fullmatch(r"Ġ[a-z]{3,12}", p))
        self.words = [word for _, word in words if not POSITION.fullmatch(word)][:6000]
        values = table[[pieces[f"Ġ{word}"] for word in self.words]].float().cpu()
        self.values = values - values.mean(0)
        self.first, self.second = number_codes(vlm)

    def batch(self, rng: np.random.Generator, count: int, alike: float, sources: Sources | None = None) -> Asked:
        """`count` images of CELLS tokens, each said to stand for some cell at random, and what is asked of each.

        `alike`: share of the images in which all cells of a thing carry the same two numbers, which is learnt sooner.
        `sources`: make half of the batch of these.
        """
        whole = self.vlm.grid[0] * self.vlm.grid[1]
        real = [] if sources is None else sources.draw(rng, count // 2)
        made = [self._image(rng, alike, source) for source in [*real, *[None] * (count - len(real))]]
        cells = torch.from_numpy(np.sort(np.stack([rng.permutation(whole)[:CELLS] for _ in made]), axis=1))
        tokens = torch.stack([x for x, _ in made]).to(self.vlm.dtype)
        return Asked(tokens, cells, [rows for _, rows in made], made_up=True)

    def _image(self, rng: np.random.Generator, alike: float, source: Source | None) -> tuple[Tensor, list[Branch]]:
        most = THINGS if source is None else len(source.things)
        owner = layout(rng, 10, 10, things=int(rng.integers(1, most + 1)) if source is None else most)
        spread = rng.permutation(len(owner))
        mine, rest = spread[owner[spread] >= 0], spread[owner[spread] < 0]
        drawn = rng.permutation(np.concatenate([mine[: CELLS - 10], rest, mine[CELLS - 10 :]])[:CELLS])
        owner, numbers = owner[drawn], np.stack([drawn % 10, drawn // 10], axis=1)
        scene = self._made_up(rng, owner) if source is None else self._drawn(rng, owner, source)
        x, called = scene.x, scene.called
        rows = [self._words(rng, called[k], scene.values[k]) for k in called if len(scene.values[k])][:2]
        if rng.random() < NUMBERED:
            if rng.random() < alike:
                for k in called:
                    numbers[owner == k] = rng.choice(numbers[owner == k])
            loud = float(rng.uniform(0.5, 1.2))
            x = x + loud * (self.first[numbers[:, 0]] + self.second[numbers[:, 1]])
            rows += [self._range(text, numbers[owner == k]) for k, text in called.items()]
        else:
            rows += [self._refusal(text) for text in called.values()]
        rows += [self._refusal(scene.absent), captions.presence(self.vlm.encode, scene.absent, False)]
        texts = list(called.values())
        rows.append(captions.presence(self.vlm.encode, texts[rng.integers(len(texts))], True))
        if len(texts) <= 3:
            rows.append(captions.caption(self.vlm.encode, texts, self.vlm.tokenizer.eos_token_id))
        return x, rows

    def _made_up(self, rng: np.random.Generator, owner: NDArray[np.int64]) -> Scene:
        """What a connector could make of up to five things and one that is absent."""
        kept = by_size(owner)
        things = self._things(rng, len(kept) + 1)
        values = {k: np.sort(rng.integers(len(self.words), size=rng.choice(WORDS))) for k in kept}
        shown = {k: entries for k, (_, entries) in zip(kept, things, strict=False)}
        called = {k: text for k, (text, _) in zip(kept, things, strict=False)}
        return Scene(self._cells(rng, owner, shown, values), called, values, things[-1][0])

    def _things(self, rng: np.random.Generator, count: int) -> list[tuple[str, NDArray[np.int64]]]:
        """(what it is called, what its cells may show) of `count` things that have none of these in common."""
        kinds, taken, found = list(self.kinds), set[str](), list[tuple[str, NDArray[np.int64]]]()
        while len(found) < count:
            if rng.random() < OF_A_KIND:
                called = kinds[rng.integers(len(kinds))]
                shown = rng.permutation(self.kinds[called])[: rng.integers(1, 5)]
            else:
                shown = rng.integers(len(self.shows), size=1)
                called = self._answers_to(int(shown[0]))[0]
            own = {called, *(text for entry in shown for text in self._answers_to(int(entry))[1:])}
            if not own & taken:
                taken |= own
                found.append((called, shown))
        return found

    def _answers_to(self, entry: int) -> tuple[str, ...]:
        """Name and kind of a class, or the name alone."""
        classes = self.vlm.classes
        return classes[entry] if entry < len(classes) else (self.vlm.names[entry - len(classes)],)

    def _cells(
        self,
        rng: np.random.Generator,
        owner: NDArray[np.int64],
        shown: dict[int, NDArray[np.int64]],
        values: dict[int, NDArray[np.int64]],
    ) -> Tensor:
        """Cells that show their thing with doubt, faint echoes of it elsewhere, strays, an offset and noise."""
        n, width = len(owner), self.shows.shape[1]
        noise = rng.normal(size=(n, width)) * rng.uniform(0.2, 1.2) + rng.normal(size=width) * rng.uniform(0, 0.8)
        x = self.blank + torch.from_numpy(noise / width**0.5).float()
        others = rng.integers(len(self.shows), size=rng.integers(4, 40))
        x += faintly(rng, n, 0.8, 0.7) * self.shows[torch.from_numpy(rng.choice(others, n))]
        for k, entries in shown.items():
            mine = torch.from_numpy(owner == k)
            own = self.shows[torch.from_numpy(rng.choice(entries, int(mine.sum())))]
            peak = rng.uniform(0.2, LOUDEST)
            sure = torch.from_numpy(peak * np.clip(1 - abs(rng.normal(0, 0.25, int(mine.sum()))), 0.4, 1)).float()
            doubt = self.shows[torch.from_numpy(rng.choice(others, int(mine.sum())))] * float(rng.uniform(0, 1))
            echo = faintly(rng, n, 0.6, 0.25 * peak) * self.shows[torch.from_numpy(rng.choice(entries, n))]
            x += torch.where(mine[:, None], 0, echo)
            x[mine] += sure[:, None] * own + (1 - sure[:, None]).clamp(min=0) * doubt
            for value in values[k]:
                x[mine] += float(rng.uniform(0.35, 1.0)) * self.values[value]
        return x

    def _drawn(self, rng: np.random.Generator, owner: NDArray[np.int64], source: Source) -> Scene:
        """The source's tokens, dealt out as `owner` asks for them."""
        kept = by_size(owner)
        x = source.rest[torch.from_numpy(rng.integers(len(source.rest), size=len(owner)))]
        for k in kept:
            pool = source.things[k][1]
            x[torch.from_numpy(owner == k)] = pool[torch.from_numpy(rng.integers(len(pool), size=(owner == k).sum()))]
        there = {text for name in source.names for entry in self.vlm.entries(name) for text in self._answers_to(entry)}
        absent = next(text for text, _ in self._things(rng, 50) if text not in there)
        called = {k: source.things[k][0] for k in kept}
        return Scene(x, called, {k: np.array([], np.int64) for k in kept}, absent)

    def _asked(self, called: str) -> tuple[int, ...]:
        phrase = captions.with_article(called)
        return tuple(self.vlm.encode(self.vlm.locate_prompt.format(phrase=phrase)))

    def _words(self, rng: np.random.Generator, called: str, values: NDArray[np.int64]) -> Branch:
        template = TEMPLATES[rng.integers(len(TEMPLATES))]
        context = self.vlm.encode(template.format(captions.with_article(called)))
        target = self.vlm.encode(" " + ", ".join(self.words[value] for value in values))
        return Branch(tuple(context), tuple(target), tuple(float(i % 2 == 0) for i in range(len(target))))

    def _refusal(self, called: str) -> Branch:
        return captions.refusal(self.vlm.encode, self.vlm.locate_prompt, called)

    def _range(self, called: str, numbers: NDArray[np.int64]) -> Branch:
        """The smallest and the largest numbers of the thing's cells int64[n, 2], in the words of the model's codec."""
        frame, ends = CODECS[self.vlm.codec].frame, [*numbers.min(0), *numbers.max(0), ""]
        target = self.vlm.encode(" " + "".join(f"{text}{number}" for text, number in zip(frame, ends, strict=True)))
        digits = [self.vlm.tokenizer.decode([token]).isdigit() for token in target]
        return Branch(self._asked(called), tuple(target), (1.0, *(1.0 if digit else 0.1 for digit in digits[1:])))


def by_size(owner: NDArray[np.int64]) -> list[int]:
    """The things that own cells, largest first."""
    things, counts = np.unique(owner[owner >= 0], return_counts=True)
    return [int(k) for k in things[np.argsort(-counts, kind="stable")]]


def faintly(rng: np.random.Generator, count: int, share: float, most: float) -> Tensor:
    """Weights float[count, 1]: zero but for a share of the cells, of up to `share`, where they lie in 0..`most`."""
    weights = np.where(rng.random(count) < rng.uniform(0, share), rng.uniform(0, most, count), 0)
    return torch.from_numpy(weights).float()[:, None]


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

"""Training an insert: composites in, answer-only loss.

Notable choices:
- All questions about one composite (each object, and one thing that is absent) share its image in one sequence.
- Behind a connector that keeps cells apart, PIN starts from the numbers of each cell's place, which the language model
  can read before any training. That gets past the average box, the place where a loss at the entropy of the box
  prior sits. A rate of 1e-5 or more can lose it again: the insert then outgrows the tokens within twenty steps.
- A digit competes with digits only, as it does under the grammar. With the whole vocabulary in the softmax the insert
  learns the answer's format first, as one large offset on every cell that drowns the image.
- Under a fixed-width codec the tens digit weighs more than the units digit, and characters that the grammar
  forces do not count.
- PIN's own recipe is the preset `paper`: one object an image, the name in the loss for the first quarter. The preset
  `released` is the same with baselines of the sizes in PIN's code: 20 image tokens, low-rank updates of rank 8;
  `split` and `gated` are the same with the two ways to read PIN's equation 3 that have a gate.
- PIN and its baselines differ in the insert, in what it starts from and in its learning rate, in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wherein import drawing
from wherein.boxtext import CODECS
from wherein.errors import InputError
from wherein.geometry import paired_iou
from wherein.grounding import Grounding
from wherein.methods.centre import BOX
from wherein.methods.insert import REFUSAL, Insert, ask
from wherein.methods.reading import Reading, read, score
from wherein.phrases import noun_phrase
from wherein.synth.negatives import is_absent
from wherein.training.store import FeatureStore
from wherein.vlm.base import FrozenVLM
from wherein.vlm.branches import Branch
from wherein.vlm.decoding import Written

AT_ONCE = 16  # images of an evaluation whose answers are written together


@dataclass(frozen=True)
class Recipe:
    """How an insert is trained.

    batch: images at once · cells: share of the image's tokens that a step shows, drawn at random (for connectors that
    keep cells apart: a cheaper step) · min_objects: at least so many objects an image (at most three) ·
    name_until: share of the run in which the object's name counts in the loss · one_object: ask for one object an image
    instead of all · absent: ask for one thing that is not there · tens, units, presence: weights in the loss, of the
    first digit of a number, of the others, and of the answer's first word, which says whether there is one ·
    under_grammar: a label competes only with what the grammar allows in its place · final: see TrainConfig.
    """

    batch: int = 12
    cells: float = 0.5
    min_objects: int = 1
    name_until: float = 0.0
    one_object: bool = False
    absent: bool = True
    tens: float = 1.0
    units: float = 0.3
    presence: float = 0.5
    under_grammar: bool = True
    final: float = 0.2


PUBLISHED = Recipe(
    batch=64,
    cells=1.0,
    min_objects=3,
    name_until=0.25,
    one_object=True,
    absent=False,
    units=1.0,
    presence=1.0,
    under_grammar=False,
    final=1.0,
)
RECIPES = {"default": Recipe(), **dict.fromkeys(("paper", "released", "split", "gated"), PUBLISHED)}
"""By preset; of a method, those that it has a rate for."""


class BoxTask:
    """An insert, the composites it learns from and the held-out ones it is measured on."""

    def __init__(
        self,
        vlm: FrozenVLM,
        insert: Insert,
        recipe: Recipe,
        train: FeatureStore,
        held_out: FeatureStore,
        names: tuple[str, ...],
        seed: int,
    ) -> None:
        self.vlm, self.recipe, self.names, self.seed = vlm, recipe, names, seed
        self.train, self.held_out = train, held_out
        self._usable = np.flatnonzero([bool(objects) for objects in train.objects])
        if not len(self._usable):
            raise InputError("No training image has an object that a phrase tells apart: there is nothing to ask.")
        self.module = insert.to(vlm.device)
        self.codec = CODECS[insert.config.codec]
        digits = [vlm.encode(f"[{digit}")[-1] for digit in range(10)]
        verdict = [vlm.encode(text)[0] for text in (f" {self.codec.frame[0]}", REFUSAL)]
        self._rivals = [digits, verdict] if recipe.under_grammar else None

    def loss(self, step: int, steps: int) -> Tensor:
        """The answer loss of one step: every question about an image continues from one run of it."""
        share, rng = step / steps, np.random.default_rng([self.seed, step])
        indices = self._usable[rng.integers(0, len(self._usable), self.recipe.batch)].tolist()
        rows = [self._branches(self.train.objects[i], self.train.absent[i], share, rng) for i in indices]
        x_v, cells = self.features(self.train, indices), None
        if self.vlm.keeps_cells and self.recipe.cells < 1:
            count = x_v.shape[1]
            shown = [rng.permutation(count)[: max(1, round(self.recipe.cells * count))] for _ in indices]
            cells = torch.from_numpy(np.sort(np.stack(shown), axis=1))
            x_v = x_v[torch.arange(len(indices))[:, None], cells]
        with self.module.installed(self.vlm, cells=cells):
            return self.vlm.loss(self.vlm.prefix(x_v, cells=cells), rows, self._rivals)[0]

    def features(self, store: FeatureStore, indices: list[int]) -> Tensor:
        """x_v float[B, N, D_v] of some images: kept ones, or, if the insert changes the encoder, made by it."""
        if not self.module.encodes:
            return store.features(indices)
        return self.module.encode(self.vlm, self.vlm.prepare(store.images(indices))[0])

    def _branches(
        self,
        objects: list[tuple[str, NDArray[np.float64]]],
        absent: str | None,
        share: float,
        rng: np.random.Generator,
    ) -> list[Branch]:
        """The questions about one image; `absent`: see Labelled."""
        asked = [objects[rng.integers(len(objects))]] if self.recipe.one_object else objects
        rows = [self._branch(name, " " + self.codec.encode(box, *self.vlm.size), share) for name, box in asked]
        if self.recipe.absent:
            other = absent or self.names[rng.integers(len(self.names))]
            if absent or is_absent(other, [name for name, _ in objects]):  # a tennis ball is a ball
                rows.append(self._branch(other, REFUSAL, share))
        return rows

    def _branch(self, name: str, answer: str, share: float) -> Branch:
        lead = self.module.lead(self.vlm)
        prompt = tuple(self.vlm.encode(lead + self.vlm.locate_prompt.format(phrase=noun_phrase(name))))
        target = tuple(self.vlm.encode(answer))
        weights = self._weights(target)
        if share < self.recipe.name_until:
            given = 1 + len(self.vlm.encode(lead))
            return Branch(prompt[:given], prompt[given:] + target, (1.0,) * (len(prompt) - given) + weights)
        return Branch(prompt, target, weights)

    def _weights(self, target: tuple[int, ...]) -> tuple[float, ...]:
        """Loss weight of each answer token: the first decides presence, then digits by their place in a number."""
        weights, place, written = [self.recipe.presence], 0, float(not self.recipe.under_grammar)
        for piece in (self.vlm.tokenizer.decode([token]) for token in target[1:]):
            digit = piece.strip().isdigit()
            weights.append(written if not digit else self.recipe.tens if place == 0 else self.recipe.units)
            place = place + 1 if digit else 0
        return tuple(weights)

    @torch.inference_mode()
    def predictions(self, count: int, shift: int = 0) -> list[tuple[int, str, NDArray[np.float64], Written]]:
        """(image, phrase, truth in model pixels, answer) for every object of the first `count` held-out images.

        With a `shift`, the question is put to the image so many places further on: what is still right then is prior.
        """
        asked = [(i, *thing) for i in range(min(count, self.held_out.count)) for thing in self.held_out.objects[i]]
        answers = self.answers([((i + shift) % self.held_out.count, name) for i, name, _ in asked])
        return [(*a, written) for a, written in zip(asked, answers, strict=True)]

    @torch.inference_mode()
    def answers(self, asked: Sequence[tuple[int, str]]) -> list[Written]:
        """What is written for each (held-out image, phrase); those about one image lie side by side."""
        found = list[Written]()
        with self.module.installed(self.vlm):
            images = list(dict.fromkeys(image for image, _ in asked))
            for some in (images[start : start + AT_ONCE] for start in range(0, len(images), AT_ONCE)):
                mine = [(some.index(image), phrase) for image, phrase in asked if image in some]
                prefix = self.vlm.prefix(self.features(self.held_out, some))
                rows, phrases = [row for row, _ in mine], [phrase for _, phrase in mine]
                found += ask(self.vlm, self.module, prefix, rows, phrases)
        return found

    def evaluate(self, step: int, folder: Path, count: int = 48) -> dict[str, float]:
        """Mean IoU on held-out composites, asked of the right and of another image; a sheet of the first six images.

        `miou` is that of the agreed box, `miou_written` that of the text (see `Reading`), `miou_centre` that of the
        constant box.
        """
        rows, others = self.predictions(count), self.predictions(count, shift=1)
        truth = np.stack([box for _, _, box, _ in rows])
        readings = [self._read(answer) for *_, answer in rows]
        folder.mkdir(parents=True, exist_ok=True)
        self._sheet(rows, folder / f"{step:07d}.png")
        return {
            "miou": _miou([reading.agreed for reading in readings], truth),
            "miou_written": _miou([reading.written for reading in readings], truth),
            "miou_other_image": _miou([self._read(answer).agreed for *_, answer in others], truth),
            "miou_centre": _miou([np.array(BOX) * ([*self.vlm.size] * 2)] * len(truth), truth),
            "seen_absent": float(np.mean([(answer.refusal or 0.0) >= 0.5 for *_, answer in rows])),
        }

    def _read(self, answer: Written) -> Reading:
        return read(answer, self.codec, *self.vlm.size)

    def _sheet(self, rows: list[tuple[int, str, NDArray[np.float64], Written]], path: Path) -> None:
        drawn = []
        for image in range(min(6, self.held_out.count)):
            groundings: list[Any] = []
            pixels = self.held_out.source(image).image
            scale = np.array([*pixels.shape[1::-1]] * 2) / np.array([*self.vlm.size] * 2)
            for _, name, _, written in (row for row in rows if row[0] == image):
                box = self._read(written).agreed * scale
                groundings.append(
                    Grounding(name, box[None], np.array([score(written)]), "token_probability", False, written.refusal)
                )
            drawn.append(np.asarray(Image.fromarray(drawing.draw(pixels, groundings)).resize((320, 320))))
        Image.fromarray(np.concatenate(drawn, axis=1)).save(path)


def _miou(boxes: list[NDArray[np.float64]], truth: NDArray[np.float64]) -> float:
    return float(paired_iou(np.stack(boxes), truth).mean())

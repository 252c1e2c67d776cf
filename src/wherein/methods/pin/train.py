"""Training a PIN: composites in, answer-only loss, and a curriculum that gets past the average box.

Notable choices:
- All questions about one composite (each object, and one thing that is absent) share its image in one sequence.
- Early steps ask only for an object's centre, and steps by then may show single objects only. A loss at the entropy of
  the box prior means that only the average box was learnt; this curriculum is to break it.
- Behind a connector that keeps cells apart, the insert starts from the digits of each cell's place, which the language
  model reads untrained; a learning rate above 1e-5 loses that again.
- A digit competes with digits only, as it does under the grammar. With the whole vocabulary in the softmax the insert
  learns the answer's format first, as one large offset on every cell that drowns the image.
- Under a fixed-width codec the tens digit weighs more than the units digit, and characters that the grammar
  forces do not count.
- The paper's own recipe is the preset `paper`: one object an image, the name in the loss for the first quarter.
"""

from __future__ import annotations

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
from wherein.methods.pin.config import PinConfig
from wherein.methods.pin.method import REFUSAL, ask, read, score
from wherein.methods.pin.module import PositionalInsert
from wherein.phrases import noun_phrase
from wherein.training.store import FeatureStore
from wherein.vlm.base import FrozenVLM
from wherein.vlm.decoding import Written
from wherein.vlm.packing import Branch, pack


@dataclass(frozen=True)
class Recipe:
    """How a PIN is trained.

    batch: images a step · cells: share of the image's tokens that a step shows, drawn at random (for connectors that
    keep cells apart: it nearly halves a step) · min_objects: at least so many objects an image (at most three) ·
    centre_until, single_until: shares of the run by which it has been asking for an object's centre only, and has been
    shown images of one object only · name_until: share in which the object's name counts in the loss · one_object:
    ask for one object an image instead of all · absent: ask for one thing that is not there · tens, units, presence:
    weights in the loss · under_grammar: a label competes only with what the grammar allows in its place · code, codec,
    seam, centred: see PinConfig · numbered: norm of the digits each cell starts with, see `numbered`; 0 starts from
    nothing · learning_rate, final: see TrainConfig.
    """

    batch: int = 12
    cells: float = 0.6
    min_objects: int = 1
    centre_until: float = 0.5
    single_until: float = 0.0
    name_until: float = 0.0
    one_object: bool = False
    absent: bool = True
    tens: float = 1.0
    units: float = 0.3
    presence: float = 0.5
    under_grammar: bool = True
    code: str = "2d"
    codec: str = "sides"
    seam: str = "connector_tokens"
    centred: bool = False
    numbered: float = 1.0
    learning_rate: float = 1e-5
    final: float = 0.05


RECIPES = {
    "default": Recipe(),
    "paper": Recipe(
        64, 1.0, 3, 0.0, 0.0, 0.25, True, False, 1.0, 1.0, 1.0, False, "1d", "grid16", "features", False, 0.0, 1e-3, 1.0
    ),
}


class PinTask:
    """A positional insert, the composites it learns from and the held-out ones it is measured on."""

    def __init__(
        self,
        vlm: FrozenVLM,
        recipe: Recipe,
        train: FeatureStore,
        held_out: FeatureStore,
        names: tuple[str, ...],
        seed: int,
    ) -> None:
        self.vlm, self.recipe, self.names, self.seed = vlm, recipe, names, seed
        self.train, self.held_out = train, held_out
        width = vlm.width(recipe.seam)
        self.config = PinConfig(
            *vlm.grid, width, code=recipe.code, codec=recipe.codec, seam=recipe.seam, centred=recipe.centred
        )
        torch.manual_seed(seed)
        self.module = PositionalInsert(self.config)
        if recipe.numbered:
            self.module.start_from(recipe.numbered * numbered(vlm))
        self.module.to(vlm.device)
        self._single = [i for i, objects in enumerate(train.objects) if len(objects) == 1]
        if not self._single and recipe.single_until > 0:
            raise InputError("No training image holds a single object, which this recipe begins with.")
        digits = [vlm.encode(f"[{digit}")[-1] for digit in range(10)]
        verdict = [vlm.encode(text)[0] for text in (f" {CODECS[recipe.codec].frame[0]}", REFUSAL)]
        self._rivals = [digits, verdict] if recipe.under_grammar else None

    def loss(self, step: int, steps: int) -> Tensor:
        """The packed answer loss of one step."""
        share, rng = step / steps, np.random.default_rng([self.seed, step])
        pool = self._single if share < self.recipe.single_until else range(self.train.count)
        indices = [pool[i] for i in rng.integers(0, len(pool), self.recipe.batch)]
        rows = [self._branches(self.train.objects[i], share, rng) for i in indices]
        whole = self.config.rows * self.config.columns
        shown = [rng.permutation(whole)[: max(1, round(self.recipe.cells * whole))] for _ in indices]
        cells = torch.from_numpy(np.sort(np.stack(shown), axis=1))
        x_v = self.train.features(indices)[torch.arange(len(indices))[:, None], cells]
        packed = pack(whole, self.vlm.encode(self.vlm.shared_prompt), rows, cells)
        with self.vlm.seam(self.config.seam, lambda x: x + self.module()[cells].to(x.dtype)):
            return self.vlm.loss(x_v, packed, self._rivals)[0]

    def _branches(
        self, objects: list[tuple[str, NDArray[np.float64]]], share: float, rng: np.random.Generator
    ) -> list[Branch]:
        asked = [objects[rng.integers(len(objects))]] if self.recipe.one_object else objects
        if share < self.recipe.centre_until:
            return [self._branch(name, self._centre(box), share) for name, box in asked]
        codec = CODECS[self.recipe.codec]
        rows = [self._branch(name, " " + codec.encode(box, *self.vlm.size), share) for name, box in asked]
        if self.recipe.absent:
            other = self.names[rng.integers(len(self.names))]
            if other not in [name for name, _ in objects]:
                rows.append(self._branch(other, REFUSAL, share))
        return rows

    def _centre(self, box: NDArray[np.float64]) -> str:
        """The beginning of a box's text, with the centre in the place of the near corner."""
        middle, codec = (box[:2] + box[2:]) / 2, CODECS[self.recipe.codec]
        text = codec.encode(np.concatenate([middle, middle + 1]), *self.vlm.size)
        return " " + text[: codec.spans(text)[1][1]]

    def _branch(self, name: str, answer: str, share: float) -> Branch:
        prompt = tuple(self.vlm.encode(self.vlm.locate_prompt.format(phrase=noun_phrase(name))))
        target = tuple(self.vlm.encode(answer))
        weights = self._weights(target, share)
        if share < self.recipe.name_until:
            return Branch(prompt[:1], prompt[1:] + target, (1.0,) * (len(prompt) - 1) + weights)
        return Branch(prompt, target, weights)

    def _weights(self, target: tuple[int, ...], share: float) -> tuple[float, ...]:
        """Loss weight of each answer token: the first decides presence, then digits by their place in a number."""
        presence = self.recipe.presence if share >= self.recipe.centre_until else 0.0  # before, nothing is ever absent
        weights, place, written = [presence], 0, float(not self.recipe.under_grammar)
        for piece in (self.vlm.tokenizer.decode([token]) for token in target[1:]):
            digit = piece.strip().isdigit()
            weights.append(written if not digit else self.recipe.tens if place == 0 else self.recipe.units)
            place = place + 1 if digit else 0
        return tuple(weights)

    @torch.inference_mode()
    def predictions(self, count: int) -> list[tuple[int, str, NDArray[np.float64], Written]]:
        """(image, phrase, truth in model pixels, answer) for every object of the first `count` held-out images."""
        found = []
        with self.vlm.seam(self.config.seam, lambda x: x + self.module().to(x.dtype)):
            for start in range(0, min(count, self.held_out.count), 16):
                images = list(range(start, min(start + 16, count, self.held_out.count)))
                asked = [(i, *thing) for i in images for thing in self.held_out.objects[i]]
                prefix = self.vlm.prefix(self.held_out.features(images))
                answers = ask(
                    self.vlm, self.config, prefix, [i - start for i, *_ in asked], [name for _, name, _ in asked]
                )
                found += [(*a, written) for a, written in zip(asked, answers, strict=True)]
        return found

    def evaluate(self, step: int, folder: Path, count: int = 48) -> dict[str, float]:
        """Mean IoU on held-out composites of the written and of the expected box; a sheet of the first six images."""
        rows = self.predictions(count)
        boxes = [read(written, CODECS[self.recipe.codec], *self.vlm.size) for *_, written in rows]
        truth = np.stack([box for _, _, box, _ in rows])
        folder.mkdir(parents=True, exist_ok=True)
        self._sheet(rows, folder / f"{step:07d}.png")
        return {
            "miou": float(paired_iou(np.stack([b for b, _ in boxes]), truth).mean()),
            "miou_expected": float(paired_iou(np.stack([e for _, e in boxes]), truth).mean()),
            "seen_absent": float(np.mean([(written.refusal or 0.0) >= 0.5 for *_, written in rows])),
        }

    def _sheet(self, rows: list[tuple[int, str, NDArray[np.float64], Written]], path: Path) -> None:
        drawn = []
        for image in range(min(6, self.held_out.count)):
            groundings: list[Any] = []
            pixels = self.held_out.source(image).image
            scale = np.array([*pixels.shape[1::-1]] * 2) / np.array([*self.vlm.size] * 2)
            for _, name, _, written in (row for row in rows if row[0] == image):
                box = read(written, CODECS[self.recipe.codec], *self.vlm.size)[0] * scale
                groundings.append(
                    Grounding(name, box[None], np.array([score(written)]), "token_probability", False, written.refusal)
                )
            drawn.append(np.asarray(Image.fromarray(drawing.draw(pixels, groundings)).resize((320, 320))))
        Image.fromarray(np.concatenate(drawn, axis=1)).save(path)


def numbered(vlm: FrozenVLM) -> Tensor:
    """float32[N, D_t]: the embeddings of the digits of each cell's column and row, in tenths of the picture, summed.

    The mean over the digits is taken off and a digit has norm 1. An insert that starts here already says something the
    language model can read, if it reads words off its image tokens at all; training then learns where an edge lies.
    """
    rows, columns = vlm.grid
    table = vlm.language_model.get_input_embeddings().weight.detach()
    digits = table[[vlm.encode(f"[{digit}")[-1] for digit in range(10)]].float().cpu()
    digits = digits - digits.mean(0)
    digits = digits / digits.norm(dim=1).mean()
    index = torch.arange(rows * columns)
    across: Tensor = digits[index % columns * 10 // columns]
    down: Tensor = digits[index // columns * 10 // rows]
    return across + down

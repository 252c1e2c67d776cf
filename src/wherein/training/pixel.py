"""Training a pixel-aligned language model on composites: narratives with their traces, names of regions, phrases.

Notable choices:
- all rows of a step are about a few shared images, whose features come from a store: the encoder runs in no step
- each kind of row has its own mean loss: a phrase has one place and a narrative some ten, which would outvote it in a
  common mean; and but on a GPU it is read on its own, so that none is filled up to another's length
- without dense traces the narratives are learnt as they are, in the same rows, but nothing is said of where their words
  are: what that changes is what the traces are worth (PixelLLM's claim is that they help phrases)
- with a codec, the box of a phrase is written as text behind the question: what that changes is what a head for places
  is worth
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wherein import drawing
from wherein.boxtext import Codec
from wherein.errors import InputError
from wherein.geometry import Frame, iou, paired_iou
from wherein.grounding import Grounding
from wherein.methods.centre import BOX
from wherein.methods.pixel.captions import SCORE, Caption
from wherein.methods.pixel.points import corners_of
from wherein.methods.pixel.prompts import Prompts
from wherein.methods.pixel.proposals import proposal_loss
from wherein.methods.pixel.reader import CAPTION, REFER, REGION, PixelReader, Seen
from wherein.synth.compose import Placed
from wherein.synth.narrative import narrate, question
from wherein.synth.referral import referrals
from wherein.training.one_pass import losses_together
from wherein.training.store import FeatureStore

NAME, SENTENCE, WRITTEN = 12, 48, 24  # tokens of the longest name, narrative and written box that evaluation reads
SHOWN = 6  # images of a sheet
FIXED = np.array([[x, y, x + 1, y + 1] for y in range(3) for x in range(3)] + [np.array(BOX) * 3]) / 3
"""Ten boxes that know no image, as shares of it: what proposals must beat."""
POINTED = 0.25  # share of steps in which regions are given by a point


@dataclass(frozen=True)
class PixelRecipe:
    """What a step holds: images, each with one narrative; rows of a region and its name; rows of a phrase and its box.

    `dense`: the places of a narrative's words are learnt, too.
    """

    images: int = 10
    regions: int = 8
    phrases: int = 20
    dense: bool = True


class Described(NamedTuple):
    """An image's objects: names, boxes float64[K, 4] in model pixels, and the phrases that are true of each alone."""

    names: list[str]
    boxes: NDArray[np.float64]
    phrases: list[tuple[str, ...]]


class PixelTask:
    """A pixel-aligned model, the composites it learns from, and two sets it is measured on: composites of categories
    that are held out, and further ones of categories that it has seen.

    Raises InputError for a set in which no phrase tells an object apart.
    """

    def __init__(
        self,
        reader: PixelReader,
        recipe: PixelRecipe,
        train: FeatureStore,
        held_out: FeatureStore,
        known: FeatureStore,
        seed: int,
        codec: Codec | None = None,
    ) -> None:
        self.reader, self.recipe, self.seed, self.codec = reader, recipe, seed, codec
        self.train, self.held_out, self.known = train, held_out, known
        self.module = reader.model.trained()
        self._described = [described(objects, reader.model.config.side) for objects in train.objects]
        self._usable = np.flatnonzero([any(image.phrases) for image in self._described])
        if not len(self._usable):
            raise InputError("No training image has an object that a phrase tells apart: there is nothing to refer to.")

    def loss(self, step: int, steps: int) -> Tensor:
        """The losses of one step's narratives, regions and phrases, added up."""
        rng = np.random.default_rng([self.seed, step])
        indices = self._usable[rng.integers(0, len(self._usable), self.recipe.images)].tolist()
        images = [self._described[i] for i in indices]
        features = [self.train.features(indices).to(self.reader.model.device)]
        traces, _ = trace_rows(self.reader, images, rng)
        if not self.recipe.dense:
            traces["tasks"] = "caption"
        parts = [
            traces,
            region_rows(self.reader, images, self.recipe.regions, rng, rng.random() < POINTED),
            phrase_rows(self.reader, images, self.recipe.phrases, rng, self.codec),
        ]
        model = self.reader.model
        if model.device.type == "cuda":
            said = losses_together(model, features, parts)
        else:
            said = [model(features=features, **part).loss for part in parts]
        if model.config.proposal_dim:
            true = [torch.from_numpy(image.boxes).float() for image in images]
            logits, boxes = model.propose(features)
            said.append(proposal_loss(logits, boxes, true, model.grid, model.config.side))
        return torch.stack(said).sum()

    def evaluate(self, step: int, folder: Path, count: int = 32) -> dict[str, float]:
        """The figures of `measure` on held-out composites, two of them on known categories, too; a sheet of the first
        held-out images: above what was asked for, below what was written."""
        folder.mkdir(parents=True, exist_ok=True)
        self._sheet(folder / f"{step:07d}.png")
        known = measure(self.reader, self.known, count, self.seed, self.codec)
        figures = measure(self.reader, self.held_out, count, self.seed, self.codec)
        return {**figures, **{f"known_{name}": known[name] for name in ("p50", "names")}}

    def _sheet(self, path: Path) -> None:
        columns = []
        for i in range(min(SHOWN, self.held_out.count)):
            seen, (pixels,) = _seen(self.reader, self.held_out, i), self.held_out.images([i])
            _, phrases = asked_of(described(self.held_out.objects[i], self.reader.model.config.side), self.seed, i)
            found = located(self.reader, seen, phrases, self.codec)
            written = self.reader.caption(seen, longest=SENTENCE)
            rows = [drawing.draw(pixels, found), drawing.draw(pixels, _placed(written))]
            columns.append(np.concatenate([np.asarray(Image.fromarray(row).resize((320, 320))) for row in rows]))
        Image.fromarray(np.concatenate(columns, axis=1)).save(path)


def described(objects: Sequence[tuple[str, NDArray[np.float64]]], side: int) -> Described:
    """What a store keeps of an image `side` model pixels wide, with the phrases that follow from it."""
    placed = [Placed(name, box, cutout=0, visible=1.0) for name, box in objects]
    boxes = np.array([thing.box for thing in placed]).reshape(-1, 4)
    return Described([thing.name for thing in placed], boxes, referrals(placed, side))


def trace_rows(
    reader: PixelReader, images: Sequence[Described], rng: np.random.Generator
) -> tuple[dict[str, Any], Tensor]:
    """A narrative of each image as `PixelLM.forward` takes it, every token of an object's word in that object's box;
    and bool[R, T], the last token of each such word."""
    told = [narrate(image.names, image.phrases, rng) for image in images]
    labels = reader.labels([narrative.text for narrative in told])
    points, ends = torch.zeros(*labels.shape, 2, 2), torch.zeros(labels.shape, dtype=torch.bool)
    for row, (narrative, image) in enumerate(zip(told, images, strict=True)):
        read = reader.tokenizer(narrative.text, add_special_tokens=False, return_offsets_mapping=True)
        for word in narrative.words:
            if word.thing is not None:
                own = [i for i, (start, end) in enumerate(read.offset_mapping) if start < word.end and word.start < end]
                points[row, own] = corners_of(torch.from_numpy(image.boxes[word.thing]).float())
                ends[row, own[-1]] = True
    text = reader.texts([CAPTION] * len(images))
    return {"labels": labels, "text": text, "tasks": "trace", "points": points}, ends


def region_rows(
    reader: PixelReader, images: Sequence[Described], count: int, rng: np.random.Generator, pointed: bool = False
) -> dict[str, Any]:
    """The boxes of `count` objects, or if `pointed` a point in each, and their names, as `PixelLM.forward` takes them;
    as few twice as can be."""
    pool = [(row, thing) for row, image in enumerate(images) for thing in range(len(image.names))]
    drawn = _drawn(pool, count, rng)
    boxes = _boxes(images, drawn)
    return {
        "labels": reader.labels([images[row].names[thing] for row, thing in drawn]),
        "text": reader.texts([REGION] * count),
        "tasks": "caption",
        "rows": torch.tensor([row for row, _ in drawn]),
        "prompts": Prompts(points=_inside(boxes, rng)) if pointed else Prompts(boxes=boxes),
    }


def phrase_rows(
    reader: PixelReader, images: Sequence[Described], count: int, rng: np.random.Generator, codec: Codec | None = None
) -> dict[str, Any]:
    """Phrases that mean one object each, `count` of them, and its box, as `PixelLM.forward` takes them; with a codec,
    the box as the text that follows the question."""
    pool = [(row, thing) for row, image in enumerate(images) for thing, known in enumerate(image.phrases) if known]
    drawn = _drawn(pool, count, rng)
    asked = [question(images[row].names[thing], images[row].phrases[thing], rng) for row, thing in drawn]
    side, boxes = reader.model.config.side, _boxes(images, drawn)
    return {
        "labels": reader.labels(asked if codec is None else [codec.encode(box, side, side) for box in boxes.numpy()]),
        "text": reader.texts([REFER.format(phrase=phrase) for phrase in asked]),
        "tasks": "refer" if codec is None else "caption",
        "rows": torch.tensor([row for row, _ in drawn]),
        "boxes": boxes,
    }


@torch.inference_mode()
def measure(
    reader: PixelReader, store: FeatureStore, count: int, seed: int, codec: Codec | None = None
) -> dict[str, float]:
    """Figures on the first `count` images of a store, each object asked for by one phrase that means it alone.

    p50, miou: of the boxes of phrases, IoU strictly above 0.5 and its mean, 0 for one that cannot be read or holds
    nothing, `invalid` of them; p50_centre, miou_centre: of the constant box · words_inside: of the words of a narrative
    that is given, those whose middle is placed in their object's box; words_inside_centre: of the image's middle ·
    names: regions whose greedy caption is the object's name, all of it; names_commonest: those that have the commonest
    name · proposed: objects that one of the ten surest proposals overlaps by more than half, of a model that proposes;
    proposed_fixed: that one of ten constant boxes does, those of a 3 x 3 grid and the constant box.
    Raises InputError where no phrase tells an object apart.
    """
    side = reader.model.config.side
    found, truth, names = [], [], Counter[str]()
    inside, middle, named, proposed, fixed = (list[bool]() for _ in range(5))
    for i in range(min(count, store.count)):
        image, seen = described(store.objects[i], side), _seen(reader, store, i)
        asked, phrases = asked_of(image, seed, i)
        found += [one.boxes[0] if len(one.boxes) else np.zeros(4) for one in located(reader, seen, phrases, codec)]
        truth += [image.boxes[thing] for thing in asked]
        told, ends = trace_rows(reader, [image], np.random.default_rng([seed, i]))
        said = reader.model(features=seen.features, **told).points.cpu()[ends].mean(1)
        low, high = told["points"][ends].unbind(1)
        inside += ((said >= low) & (said <= high)).all(1).tolist()
        middle += ((low <= side / 2) & (high >= side / 2)).all(1).tolist()
        captions = reader.captions_of(seen, image.boxes, longest=NAME)
        named += [caption.text.strip() == name for caption, name in zip(captions, image.names, strict=True)]
        names.update(image.names)
        fixed += (iou(image.boxes, FIXED * side).max(1, initial=0) > 0.5).tolist()
        if reader.model.config.proposal_dim:
            proposed += (iou(image.boxes, reader.propose(seen, least=0)[0]).max(1, initial=0) > 0.5).tolist()
    if not truth:
        raise InputError(f"No phrase tells an object apart in the first {count} images of {store.folder}.")
    ious = paired_iou(np.stack(found), np.stack(truth))
    constant = paired_iou(np.tile(np.array(BOX) * side, (len(truth), 1)), np.stack(truth))
    return {
        "p50": float((ious > 0.5).mean()),
        "miou": float(ious.mean()),
        "invalid": float((np.stack(found) == 0).all(1).mean()),
        "p50_centre": float((constant > 0.5).mean()),
        "miou_centre": float(constant.mean()),
        "words_inside": float(np.mean(inside)),
        "words_inside_centre": float(np.mean(middle)),
        "names": float(np.mean(named)),
        "names_commonest": max(names.values()) / names.total(),
        **({"proposed": float(np.mean(proposed)), "proposed_fixed": float(np.mean(fixed))} if proposed else {}),
    }


def located(reader: PixelReader, seen: Seen, phrases: Sequence[str], codec: Codec | None = None) -> list[Grounding]:
    """The box of each phrase, from its last word's state, or with a codec as it is written."""
    if codec is None:
        return reader.refer(seen, phrases)
    found = []
    for phrase in phrases:
        said = reader.caption(seen, longest=WRITTEN, lead=REFER.format(phrase=phrase))
        box = codec.decode(said.text, seen.frame.model_width, seen.frame.model_height)
        boxes, scores = (np.zeros((0, 4)), []) if box is None else (seen.frame.to_image(box[None]), [said.score])
        found.append(Grounding(phrase, boxes, np.array(scores), SCORE, False, None, answer=said.text))
    return found


def _seen(reader: PixelReader, store: FeatureStore, index: int) -> Seen:
    side = reader.model.config.side
    return Seen(Frame.identity(side, side), [store.features([index])])


def asked_of(image: Described, seed: int, index: int) -> tuple[list[int], list[str]]:
    """Objects that a phrase tells apart, and one of its phrases for each: the same ones at every evaluation."""
    rng = np.random.default_rng([seed, index])
    things = [thing for thing, phrases in enumerate(image.phrases) if phrases]
    return things, [question(image.names[thing], image.phrases[thing], rng) for thing in things]


def _placed(caption: Caption) -> list[Grounding]:
    """The words of a caption that speak of something, each with its box, to be drawn."""
    return [
        Grounding(word.text, word.box[None], np.array([caption.score]), SCORE, False, None)
        for word in caption.trace
        if word.box is not None
    ]


def _drawn(pool: Sequence[tuple[int, int]], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    return [pool[i] for i in np.resize(rng.permutation(len(pool)), count).tolist()]


def _inside(boxes: Tensor, rng: np.random.Generator) -> Tensor:
    """A point float[R, 1, 2] in the middle half of each box float[R, 4]."""
    share = torch.from_numpy(rng.uniform(0.25, 0.75, (len(boxes), 2))).to(boxes)
    return (boxes[:, :2] + share * (boxes[:, 2:] - boxes[:, :2]))[:, None]


def _boxes(images: Sequence[Described], drawn: Sequence[tuple[int, int]]) -> Tensor:
    return torch.from_numpy(np.stack([images[row].boxes[thing] for row, thing in drawn])).float()

"""Training a pixel-aligned model on photographs that people described: lessons in, the published losses out.

    sources -> lessons -> pictures in the model's square, rows of a task -> losses

Notable choices:
- the lessons of a step are read kind by kind, each kind's mean loss weighted by its share of the pictures
- a narrative too long for the model is cut, and has no end then; so is a phrase, which then teaches nothing
- unreadable pictures are drawn again, never counted: a set with a damaged file trains, one of nothing else does not
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wherein import drawing
from wherein.errors import ImageError, InputError
from wherein.geometry import Frame, paired_iou
from wherein.methods.centre import BOX
from wherein.methods.pixel.language import IGNORED
from wherein.methods.pixel.picture import draw_trace
from wherein.methods.pixel.points import corners_of
from wherein.methods.pixel.prompts import Prompts
from wherein.methods.pixel.proposals import proposal_loss
from wherein.methods.pixel.reader import LONGEST, PixelReader, frame_of, shown
from wherein.training.lessons import KINDS, Lesson, Source

TRIES = 8  # pictures that are drawn for one, before damage is no accident
SHOWN = 4  # pictures of each kind on a sheet


class PhotographTask:
    """A pixel-aligned model, the sources that it learns from, by kind, and those it is measured on.

    `weights`: how often each kind is drawn, in shares; `batch`: pictures a step.
    """

    def __init__(
        self,
        reader: PixelReader,
        sources: Mapping[str, Sequence[Source]],
        held_out: Mapping[str, Sequence[Source]],
        weights: Mapping[str, float],
        batch: int,
        seed: int,
    ) -> None:
        """Raises InputError for a kind without a source."""
        if missing := sorted(set(weights) - {kind for kind, some in sources.items() if some}):
            raise InputError(f"This stage learns from {', '.join(weights)}: give data of {', '.join(missing)}.")
        self.reader, self.sources, self.held_out = reader, sources, held_out
        self.batch, self.seed, self.module = batch, seed, reader.model.trained()
        self._kinds = list(weights)
        self._shares = np.array([weights[kind] for kind in self._kinds]) / sum(weights.values())

    def loss(self, step: int, steps: int) -> Tensor:
        """The losses of one step's lessons."""
        kinds = np.random.default_rng([self.seed, step]).choice(self._kinds, self.batch, p=self._shares).tolist()

        def drawn(place: int) -> Lesson:
            """The lesson at this place of the batch."""
            return _drawn(self.sources[kinds[place]], np.random.default_rng([self.seed, step, place]))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            lessons = list(pool.map(drawn, range(self.batch)))
        losses = []
        for kind in dict.fromkeys(kinds):
            own = [lesson for lesson in lessons if lesson.kind == kind]
            losses.append(lesson_loss(self.reader, own) * (len(own) / self.batch))
        return torch.stack(losses).sum()

    @torch.inference_mode()
    def evaluate(self, step: int, folder: Path, count: int = 32) -> dict[str, float]:
        """On the first `count` held-out lessons of each kind: `loss_<kind>`; of phrases, P@0.5 (strict) beside that of
        the constant box; of narratives, how far off the middle of a word's place is, as a share of the picture, beside
        that of the picture's middle. A sheet of the first answers for each of the two.
        """
        folder.mkdir(parents=True, exist_ok=True)
        figures = dict[str, float]()
        for kind, sources in self.held_out.items():
            rng = np.random.default_rng(self.seed)
            pictures = [(source, i) for source in sources for i in range(len(source))][:count]
            lessons = [source.lesson(i, rng) for source, i in pictures]
            losses = [float(lesson_loss(self.reader, [lesson])) for lesson in lessons]
            figures[f"loss_{kind}"] = float(np.mean(losses))
            if kind in ("phrases", "masks"):
                figures |= _found(self.reader, lessons)
            if kind == "narratives":
                figures |= _off(self.reader, lessons)
            if kind in ("phrases", "narratives"):
                _sheet(self.reader, lessons[:SHOWN], folder / f"{step:07d}-{kind}.png")
        return figures


def lesson_loss(reader: PixelReader, lessons: Sequence[Lesson]) -> Tensor:
    """The loss of lessons of one kind; where regions are learnt, also that of proposals, of a model that proposes."""
    rows, frames = rows_of(reader, lessons)
    model = reader.model
    features = model.features(rows.pop("pixels"), rows["sizes"])
    loss: Tensor = model(features=features, **rows).loss
    if lessons[0].kind == "regions" and model.config.proposal_dim:
        logits, boxes = model.propose(features)
        true = [frame.to_model(one.scene.boxes) for one, frame in zip(lessons, frames, strict=True)]
        tables = [torch.from_numpy(table).float() for table in true]
        loss = loss + proposal_loss(logits, boxes, tables, model.grid, model.config.side)
    return loss


def rows_of(reader: PixelReader, lessons: Sequence[Lesson]) -> tuple[dict[str, Any], list[Frame]]:
    """Lessons of one kind as `PixelLM.forward` takes them, and how each picture lies in the square."""
    config, kind = reader.model.config, lessons[0].kind
    placed = [fitted(one.scene.image, config.side, config.fit, one.share) for one in lessons]
    frames = [frame for _, frame in placed]
    pictures = torch.from_numpy(np.stack([picture for picture, _ in placed])).permute(0, 3, 1, 2)
    labels, spans = _labels(reader, [phrase for one in lessons for phrase in one.scene.phrases])
    boxes = [frame.to_model(one.scene.boxes) for one, frame in zip(lessons, frames, strict=True)]
    table = torch.from_numpy(np.concatenate(boxes)).float()
    rows: dict[str, Any] = {
        "pixels": pictures,
        "sizes": torch.tensor([shown(frame) for frame in frames]),
        "rows": torch.tensor([i for i, one in enumerate(lessons) for _ in one.scene.phrases]),
        "labels": labels,
        "text": reader.texts([question for one in lessons for question in one.scene.questions]),
        "tasks": KINDS[kind],
    }
    if kind == "narratives":
        rows["points"] = _points(lessons, frames, labels, spans, config.points_per_token)
    elif kind == "regions":
        rows["prompts"] = Prompts(boxes=table)
    elif kind in ("phrases", "masks"):
        rows["boxes"] = table
    if kind == "masks":
        rows["masks"] = _masks(lessons, frames, config.side)
    return rows, frames


def fitted(image: NDArray[np.uint8], side: int, fit: str, share: float = 1.0) -> tuple[NDArray[np.uint8], Frame]:
    """uint8[H, W, 3] in a square uint8[side, side, 3], and how it lies there; `share`: of the side that it takes."""
    inner = max(1, round(side * share))
    frame = frame_of(image.shape[1], image.shape[0], inner, fit).pad(0, 0, side - inner, side - inner)
    width, height = (max(1, round(length)) for length in shown(frame))
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    square = np.zeros((side, side, 3), np.uint8)
    square[:height, :width] = small
    return square, frame


def _drawn(sources: Sequence[Source], rng: np.random.Generator) -> Lesson:
    """A lesson of one of the sources, each as likely. Raises InputError where picture after picture is damaged."""
    for _ in range(TRIES):
        source = sources[int(rng.integers(len(sources)))]
        try:
            return source.lesson(int(rng.integers(len(source))), rng)
        except (ImageError, InputError) as error:
            damage = error
    raise InputError(f"Of {TRIES} pictures that were drawn none could be used; the last: {damage}")


def _labels(reader: PixelReader, texts: Sequence[str]) -> tuple[Tensor, list[list[tuple[int, int]]]]:
    """Texts as `PixelLM.forward` takes them, cut where they are too long, and the characters of each token."""
    read = reader.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
    ids = [[*own, reader.model.config.end_token_id][:LONGEST] for own in read["input_ids"]]
    labels = torch.full((len(ids), max(map(len, ids))), IGNORED)
    for row, own in enumerate(ids):
        labels[row, : len(own)] = torch.tensor(own)
    return labels, [list(spans)[:LONGEST] for spans in read["offset_mapping"]]


def _points(
    lessons: Sequence[Lesson],
    frames: Sequence[Frame],
    labels: Tensor,
    spans: Sequence[Sequence[tuple[int, int]]],
    count: int,
) -> Tensor:
    """The place float[R, T, P, 2] of each token, model pixels: its word's box, or that box's middle; 0 for none."""
    points = torch.zeros(*labels.shape, count, 2)
    for row, (lesson, frame) in enumerate(zip(lessons, frames, strict=True)):
        for start, end, box in lesson.trace:
            corners = corners_of(torch.from_numpy(frame.to_model(box[None])[0]).float())
            own = [i for i, (first, last) in enumerate(spans[row]) if first < end and start < last]
            points[row, own] = corners if count == 2 else corners.mean(0, keepdim=True)
    return points


def _masks(lessons: Sequence[Lesson], frames: Sequence[Frame], side: int) -> Tensor:
    """bool[R, side, side]: the masks of the lessons over the square."""
    drawn = []
    for lesson, frame in zip(lessons, frames, strict=True):
        width, height = (max(1, round(length)) for length in shown(frame))
        assert lesson.scene.masks is not None
        for mask in lesson.scene.masks:
            square = np.zeros((side, side), bool)
            square[:height, :width] = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
            drawn.append(square)
    return torch.from_numpy(np.stack(drawn))


def _found(reader: PixelReader, lessons: Sequence[Lesson]) -> dict[str, float]:
    """P@0.5 of the phrases, and of the constant box."""
    found, truth, constant = [], [], []
    for lesson in lessons:
        scene, seen = lesson.scene, reader.see(lesson.scene.image)
        found += [one.boxes[0] if len(one.boxes) else np.zeros(4) for one in reader.refer(seen, scene.phrases)]
        truth += list(scene.boxes)
        constant += [np.array(BOX) * ([*scene.image.shape[1::-1]] * 2)] * len(scene.boxes)
    right, fixed = (paired_iou(np.stack(boxes), np.stack(truth)) > 0.5 for boxes in (found, constant))
    return {"p50": float(right.mean()), "p50_centre": float(fixed.mean())}


def _off(reader: PixelReader, lessons: Sequence[Lesson]) -> dict[str, float]:
    """How far off words are whose text is given, and the picture's middle; shares of the square's side."""
    off, middle = list[float](), list[float]()
    side = reader.model.config.side
    for lesson in lessons:
        rows, _ = rows_of(reader, [lesson])
        told = rows["points"][0]
        placed = (told != 0).flatten(1).any(1) & (rows["labels"][0] != IGNORED)
        said = reader.model(**rows).points[0].cpu()
        off += ((said.mean(1) - told.mean(1)).abs().mean(-1)[placed] / side).tolist()
        middle += ((rows["sizes"][0] / 2 - told.mean(1)).abs().mean(-1)[placed] / side).tolist()
    return {"words_off": float(np.mean(off)), "words_off_centre": float(np.mean(middle))}


def _sheet(reader: PixelReader, lessons: Sequence[Lesson], path: Path) -> None:
    """What the model answers: the boxes of phrases, or a caption with the places of its words."""
    columns = []
    for lesson in lessons:
        image, phrases = lesson.scene.image, lesson.scene.phrases
        seen = reader.see(image)
        traced = lesson.kind == "narratives"
        drawn = draw_trace(image, reader.caption(seen)) if traced else drawing.draw(image, reader.refer(seen, phrases))
        columns.append(np.asarray(Image.fromarray(drawn).resize((320, 320))))
    Image.fromarray(np.concatenate(columns, axis=1)).save(path)

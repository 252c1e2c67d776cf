"""Training a pixel-aligned model on photographs that people described: lessons in, the published losses out.

    sources -> lessons -> pictures in the model's square, rows of a task -> losses

Notable choices:
- the lessons of a step are read kind by kind, each kind's mean loss weighted by its share of the pictures
- a narrative too long for the model is cut, and has no end then; so is a phrase, which then teaches nothing
- a picture that cannot be used is drawn again, told once and counted; a set of nothing else ends the run
- the model stays as it is asked, without dropout: what is trained is small beside what is frozen
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wherein import drawing
from wherein.data.mask import NeedsExtra
from wherein.errors import ImageError, InputError
from wherein.geometry import Frame, paired_iou
from wherein.methods.centre import BOX
from wherein.methods.pixel.language import IGNORED
from wherein.methods.pixel.picture import draw_trace
from wherein.methods.pixel.points import corners_of
from wherein.methods.pixel.prompts import Prompts
from wherein.methods.pixel.proposals import proposal_loss
from wherein.methods.pixel.reader import LONGEST, PixelReader, fitted, shown
from wherein.training.lessons import KINDS, Lesson, Lessons, varied

HELD_OUT = 32  # pictures of each kind that are measured
TRIES = 8  # pictures that are drawn for one, before damage is no accident
SHOWN = 4  # pictures of each kind on a sheet


class PhotographTask:
    """A pixel-aligned model, the lessons that it learns from, by kind, and those it is measured on.

    `weights`: how often each kind is drawn, in shares; of several sets of one kind each is as likely. `batch`: pictures
    a step. `tell`: hears of each picture that cannot be used.
    """

    def __init__(
        self,
        reader: PixelReader,
        sources: Mapping[str, Sequence[Lessons]],
        held_out: Mapping[str, Sequence[Lessons]],
        weights: Mapping[str, float],
        batch: int,
        seed: int,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Raises InputError for a kind without lessons, or with held-out ones of which none can be used."""
        if missing := sorted(set(weights) - {kind for kind, some in sources.items() if some}):
            raise InputError(f"This stage learns from {', '.join(weights)}: give data of {', '.join(missing)}.")
        self.reader, self.sources, self.batch, self.seed = reader, sources, batch, seed
        self.module = reader.model.trained()
        self._tell, self._told, self._skipped = tell, set[str](), 0
        self._kinds = list(weights)
        self._shares = np.array([weights[kind] for kind in self._kinds]) / sum(weights.values())
        self._held_out = {kind: self._first(kind, some) for kind, some in held_out.items()}

    def loss(self, step: int, steps: int) -> Tensor:
        """The losses of one step's lessons."""
        kinds = np.random.default_rng([self.seed, step, 0]).choice(self._kinds, self.batch, p=self._shares).tolist()

        def drawn(place: int) -> Lesson:
            """The lesson at this place of the batch."""
            return self._drawn(self.sources[kinds[place]], np.random.default_rng([self.seed, step, 1 + place]))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            lessons = list(pool.map(drawn, range(self.batch)))
        losses = []
        for kind in dict.fromkeys(kinds):
            own = [lesson for lesson in lessons if lesson.kind == kind]
            loss, skipped = lesson_loss(self.reader, own)
            losses.append(loss * (len(own) / self.batch))
            self._skipped += skipped
        return torch.stack(losses).sum()

    @torch.inference_mode()
    def evaluate(self, step: int, folder: Path) -> dict[str, float]:
        """On held-out lessons, whole pictures: `loss_<kind>`; `<kind>_p50` of phrases and masks, strict, beside that of
        the constant box; `words_off` of narratives: how far off the middle of a word's place is, as a share of the
        square's side, beside that of the picture's middle. `unusable`: pictures that had to be drawn again;
        `skipped`: phrases that taught nothing, since they were cut off; both in this process since it began. A sheet of
        the first answers.
        """
        folder.mkdir(parents=True, exist_ok=True)
        figures = {"unusable": float(len(self._told)), "skipped": float(self._skipped)}
        for kind, lessons in self._held_out.items():
            figures[f"loss_{kind}"] = float(np.mean([float(lesson_loss(self.reader, [one])[0]) for one in lessons]))
            if kind in ("phrases", "masks"):
                figures |= {f"{kind}_{name}": value for name, value in _found(self.reader, lessons).items()}
            if kind == "narratives":
                figures |= _off(self.reader, lessons)
            if kind in ("phrases", "narratives"):
                _sheet(self.reader, lessons[:SHOWN], folder / f"{step:07d}-{kind}.png")
        return figures

    def _drawn(self, sources: Sequence[Lessons], rng: np.random.Generator) -> Lesson:
        """A lesson of one of the sets. Raises InputError where picture after picture cannot be used."""
        for _ in range(TRIES):
            lessons = sources[int(rng.integers(len(sources)))]
            lesson = self._usable(lessons, int(rng.integers(len(lessons))), rng)
            if lesson is not None:
                return varied(lesson, lessons, rng)
        raise InputError(f"Of {TRIES} pictures that were drawn none could be used: see what was said of each.")

    def _usable(self, lessons: Lessons, index: int, rng: np.random.Generator) -> Lesson | None:
        """A lesson whose texts the model can be given; None where there is none, which is told."""
        try:
            lesson = lessons.lesson(index, rng)
            self.reader.texts([*lesson.scene.questions, *lesson.scene.phrases])
        except NeedsExtra:
            raise
        except (ImageError, InputError) as error:
            if str(error) not in self._told:
                self._told.add(str(error))
                self._tell(str(error))
            return None
        return lesson

    def _first(self, kind: str, sources: Sequence[Lessons]) -> list[Lesson]:
        """Lessons of the first pictures of every set, together `HELD_OUT` at most."""
        rng, most = np.random.default_rng(self.seed), max(1, HELD_OUT // len(sources))
        each = [self._usable(some, i, rng) for some in sources for i in range(min(most, len(some)))]
        found = [lesson for lesson in each if lesson is not None]
        if not found:
            raise InputError(f"None of the first held-out pictures of {kind} can be used.")
        return found


def lesson_loss(reader: PixelReader, lessons: Sequence[Lesson]) -> tuple[Tensor, int]:
    """The loss of lessons of one kind, and how many of their phrases teach nothing, since they were cut off.

    Where regions are learnt, also the loss of proposals, of a model that proposes: of all things, described or not.
    """
    rows, frames = rows_of(reader, lessons)
    model = reader.model
    features = model.features(rows.pop("pixels"), rows["sizes"])
    out = model(features=features, **rows)
    loss: Tensor = out.loss
    if lessons[0].kind == "regions" and model.config.proposal_dim:
        logits, boxes = model.propose(features)
        things = [np.concatenate([one.scene.boxes, one.scene.others]) for one in lessons]
        true = [frame.to_model(boxes) for boxes, frame in zip(things, frames, strict=True)]
        tables = [torch.from_numpy(table).float() for table in true]
        loss = loss + proposal_loss(logits, boxes, tables, model.grid, model.config.side)
    return loss, int(out.skipped)


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
        for word, own in zip(lesson.trace, _tokens(lesson, spans[row]), strict=True):
            corners = corners_of(torch.from_numpy(frame.to_model(word.box[None])[0]).float())
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
    """P@0.5 of phrases and of the constant box; of masks also the cumulative IoU, of a model that draws them."""
    found, truth, constant = [], [], []
    overlap = np.zeros(2)  # intersections and unions, pixels
    draws = lessons[0].kind == "masks" and reader.model.config.sam_encodes
    for lesson in lessons:
        scene, seen = lesson.scene, reader.see(lesson.scene.image)
        answers = reader.refer(seen, scene.phrases, masks=draws)
        found += [one.boxes[0] if len(one.boxes) else np.zeros(4) for one in answers]
        truth += list(scene.boxes)
        constant += [np.array(BOX) * ([*scene.image.shape[1::-1]] * 2)] * len(scene.boxes)
        for one, true in zip(answers, scene.masks if draws and scene.masks is not None else (), strict=draws):
            drawn = np.zeros_like(true) if one.mask is None else one.mask
            overlap += [(drawn & true).sum(), (drawn | true).sum()]
    right, fixed = (paired_iou(np.stack(boxes), np.stack(truth)) > 0.5 for boxes in (found, constant))
    figures = {"p50": float(right.mean()), "p50_centre": float(fixed.mean())}
    return figures | ({"ciou": float(overlap[0] / max(overlap[1], 1))} if draws else {})


def _off(reader: PixelReader, lessons: Sequence[Lesson]) -> dict[str, float]:
    """How far off words are whose text is given, each at its last token, and the picture's middle; none without any."""
    off, middle = list[float](), list[float]()
    side = reader.model.config.side
    for lesson in lessons:
        rows, _ = rows_of(reader, [lesson])
        spans = _labels(reader, lesson.scene.phrases)[1][0]
        last = [own[-1] for own in _tokens(lesson, spans) if own]  # a word that was cut off has none
        told, said = rows["points"][0].mean(1)[last], reader.model(**rows).points[0].cpu().mean(1)[last]
        off += ((said - told).abs().mean(-1) / side).tolist()
        middle += ((rows["sizes"][0] / 2 - told).abs().mean(-1) / side).tolist()
    return {"words_off": float(np.mean(off)), "words_off_centre": float(np.mean(middle))} if off else {}


def _tokens(lesson: Lesson, spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The tokens of each word with a place, all that share a character with it; `spans`: the characters of each."""
    return [[i for i, (a, b) in enumerate(spans) if a < end and start < b] for start, end, _ in lesson.trace]


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

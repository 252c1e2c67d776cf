"""What people wrote about photographs, as lessons for a pixel-aligned model: narratives, captions, phrases, regions.

Notable choices:
- a lesson is of a whole picture; `varied` draws it anew each time it comes up: at another scale, or mirrored
- a scale above 1 shows a window of the picture, one below 1 a smaller picture; what is said goes along (`Scene.crop`).
  Pictures with a trace stay whole, as published
- pictures are mirrored where regions are learnt only, as published, and their phrases with them (`Scene.mirror`)
- a phrase must mean one thing of its picture: of several boxes a model could only learn the middle
- some of a picture's regions are described, and the boxes of all come along: what is a thing is no background, even
  where nothing is said of it this time
- prompts before a caption are phrasings of our own, as many as were published
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from wherein import images
from wherein.data import Captioned, LabelledBox, Narrative, Sample
from wherein.data.mask import NeedsExtra
from wherein.errors import InputError
from wherein.methods.pixel import traces
from wherein.methods.pixel.reader import CAPTION, REFER, REGION
from wherein.methods.pixel.scenes import Scene
from wherein.methods.pixel.words import WORD

LONG = (
    CAPTION,
    "Tell all that is here: ",
    "A full description: ",
    "Describe it at length: ",
    "What is to be seen: ",
    "The picture in many words: ",
    "Every thing in the image: ",
    "In detail, it shows ",
    "Go through the image: ",
    "A story of the picture: ",
    "All of the image: ",
)
SHORT = (
    "A photo of ",
    "A picture of ",
    "An image of ",
    "This shows ",
    "Here is ",
    "One can see ",
    "In short: ",
    "A brief caption: ",
    "The photo shows ",
    "In one sentence: ",
    "The image in short: ",
    "What it shows: ",
    "A short description: ",
)
PHRASES = 16  # of a picture at most, as published
REGIONS = 32  # that are described: the release trains on as many proposals, of pictures with up to 100 boxes
T = TypeVar("T")


class PlacedText(NamedTuple):
    """Characters of a text, from `start` to `end`, and the box float64[4] of what they speak of, image pixels."""

    start: int
    end: int
    box: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a picture teaches: `kind`, one of `KINDS`, a scene, and of a narrative the places of its words. `share`: how
    much of the model's square the longer side of the picture takes, at most 1.
    """

    kind: str
    scene: Scene
    trace: tuple[PlacedText, ...] = ()
    share: float = 1.0


class Lessons(Protocol):
    """Pictures to learn from. scales: between which they are shown, if they vary · mirrors: half of them mirrored."""

    scales: tuple[float, float] | None
    mirrors: bool

    def __len__(self) -> int:
        """How many there are."""

    def lesson(self, index: int, rng: np.random.Generator) -> Lesson:
        """A lesson from one of them, the picture as it is; what is said of it is drawn where there is a choice.

        Raises ImageError for a file that is no image, InputError where what is said does not fit it.
        """


class Narratives:
    """Localized Narratives: of each picture one narrative, and where the mouse was at each of its words."""

    scales, mirrors = None, False

    def __init__(self, narratives: Iterable[Narrative]) -> None:
        """Those without a trace are left out. Raises InputError where none is left."""
        by_image: dict[Path, list[Narrative]] = defaultdict(list)
        for one in narratives:
            if traces.moves(one.strokes):
                by_image[one.path].append(one)
        self._images = _some(list(by_image.values()), "narratives with a trace")

    def __len__(self) -> int:
        """Images."""
        return len(self._images)

    def lesson(self, index: int, rng: np.random.Generator) -> Lesson:
        """See Lessons."""
        own = self._images[index]
        told = own[int(rng.integers(len(own)))]
        image = images.load(told.path)
        words = words_of(told, image.shape[1], image.shape[0])
        return Lesson("narratives", _whole(image, told.caption, LONG, rng), words)


class Captions:
    """Captions of whole pictures, of each one."""

    scales, mirrors = (0.75, 1.25), False

    def __init__(self, captioned: Iterable[Captioned]) -> None:
        """Raises InputError where there is none."""
        self._images = _some(list(captioned), "captions")

    def __len__(self) -> int:
        """Images."""
        return len(self._images)

    def lesson(self, index: int, rng: np.random.Generator) -> Lesson:
        """See Lessons."""
        own = self._images[index]
        caption = own.captions[int(rng.integers(len(own.captions)))]
        return Lesson("captions", _whole(images.load(own.path), caption, SHORT, rng))


class Phrases:
    """Phrases that mean one thing each, and its box; with `masks`, its mask, too."""

    scales, mirrors = (0.75, 1.25), False

    def __init__(self, samples: Iterable[Sample], masks: bool = False) -> None:
        """Left out are phrases of several boxes, and with `masks` things without one. Raises InputError where nothing
        is left."""
        self.kind = "masks" if masks else "phrases"
        kept = (replace(one, objects=tuple(_meant(one, masks))) for one in samples)
        self._images = _some([one for one in kept if one.objects], self.kind)

    def __len__(self) -> int:
        """Images."""
        return len(self._images)

    def lesson(self, index: int, rng: np.random.Generator) -> Lesson:
        """See Lessons."""
        return Lesson(self.kind, _scene(self._images[index], PHRASES, rng, self.kind == "masks"))


class Regions:
    """Boxes and what is said of each."""

    scales, mirrors = (0.1, 2.0), True

    def __init__(self, samples: Iterable[Sample]) -> None:
        """Boxes that hold nothing are left out. Raises InputError where there is no region."""
        kept = (replace(one, objects=tuple(thing for thing in one.objects if thing.has_area)) for one in samples)
        self._images = _some([one for one in kept if one.objects], "regions")

    def __len__(self) -> int:
        """Images."""
        return len(self._images)

    def lesson(self, index: int, rng: np.random.Generator) -> Lesson:
        """See Lessons."""
        scene = _scene(self._images[index], REGIONS, rng)
        return Lesson("regions", replace(scene, questions=(REGION,) * len(scene.phrases)))


KINDS = {"narratives": "trace", "captions": "caption", "phrases": "refer", "masks": "segment", "regions": "caption"}
"""The kinds of lessons, and the task of `PixelLM.forward` that each is."""


def words_of(told: Narrative, width: int, height: int) -> tuple[PlacedText, ...]:
    """The words of a narrative about an image of this size, pixels, that were said while the mouse was somewhere."""
    traced = traces.trace(told.strokes, told.words)
    if traced is None:
        return ()
    boxes, words = traces.pixels(traced.boxes, width, height), list(WORD.finditer(told.caption))
    said = traces.by_words([word.group() for word in words], told.words, traced.valid)
    each = zip(words, said, strict=True)
    return tuple(PlacedText(word.start(), word.end(), boxes[i]) for word, i in each if i >= 0)


def varied(lesson: Lesson, lessons: Lessons, rng: np.random.Generator) -> Lesson:
    """A lesson as it is shown this time: at one of the scales of the `lessons` that it is from, or mirrored.

    Above a scale of 1 it is a window of its picture, unless that would hold nothing of what is said.
    Raises ValueError for a lesson with a trace whose picture would not stay as it is.
    """
    if lesson.trace and (lessons.mirrors or lessons.scales is not None):
        raise ValueError("the places of a trace do not move with the picture: its lessons have no scales and no mirror")
    if lessons.mirrors and rng.random() < 0.5:
        lesson = replace(lesson, scene=lesson.scene.mirror())
    if lessons.scales is None:
        return lesson
    scale, scene = rng.uniform(*lessons.scales), lesson.scene
    if scale <= 1:
        return replace(lesson, share=scale)
    whole = np.array(scene.image.shape[1::-1])
    window = np.minimum(whole, max(1, round(max(whole) / scale)))
    x, y = (rng.integers(0, whole - window + 1)).tolist()
    cropped = scene.crop(x, y, int(window[0]), int(window[1]))
    return replace(lesson, scene=cropped) if cropped.phrases else lesson


def _whole(image: NDArray[np.uint8], caption: str, leads: Sequence[str], rng: np.random.Generator) -> Scene:
    height, width = image.shape[:2]
    lead = leads[int(rng.integers(len(leads)))]
    return Scene(image, (caption,), (lead,), np.array([[0.0, 0.0, width, height]]))


def _scene(sample: Sample, most: int, rng: np.random.Generator, masks: bool = False) -> Scene:
    """Some of the things of a picture, the questions that ask for them, and the boxes of its other things."""
    image = sample.image()
    height, width = image.shape[:2]
    fitting = [thing for thing in sample.objects if _fits(sample, thing, width, height)]
    if not fitting:
        raise InputError(f"{sample.where or sample.path}: nothing that is labelled is inside the image.")
    order = rng.permutation(len(fitting)).tolist()
    chosen, rest = ([fitting[i] for i in sorted(some)] for some in (order[:most], order[most:]))
    drawn = [thing.mask.decode(height, width) for thing in chosen if thing.mask is not None] if masks else []
    return Scene(
        image,
        tuple(thing.phrase for thing in chosen),
        tuple(REFER.format(phrase=thing.phrase) for thing in chosen),
        np.stack([thing.box for thing in chosen]),
        np.stack(drawn) if masks else None,
        np.array([thing.box for thing in rest]).reshape(-1, 4),
    )


def _meant(sample: Sample, masks: bool) -> Iterator[LabelledBox]:
    """The things that a phrase means alone, each once, however many people said the same of it; with `masks`, those
    that have one."""
    boxes: dict[str, set[tuple[float, ...]]] = defaultdict(set)
    for thing in sample.objects:
        boxes[thing.phrase].add(tuple(thing.box.tolist()))
    told = set[str]()
    for thing in sample.objects:
        fits = thing.has_area and (thing.mask is not None or not masks)
        if fits and len(boxes[thing.phrase]) == 1 and thing.phrase not in told:
            told.add(thing.phrase)
            yield thing


def _fits(sample: Sample, thing: LabelledBox, width: int, height: int) -> bool:
    """Whether a thing is inside the image: one box too many must not cost all others of its picture."""
    alone = replace(sample, objects=(thing,))
    try:
        alone.check(width, height)
        alone.check_masks(width, height)
    except NeedsExtra:  # of this thing no more than of any other
        raise
    except InputError:
        return False
    return True


def _some(found: list[T], what: str) -> list[T]:
    if not found:
        raise InputError(f"There are no {what} to learn from.")
    return found

"""What people wrote about photographs, as lessons for a pixel-aligned model: narratives, captions, phrases, regions.

Notable choices:
- every picture is drawn anew each time it comes up: one of its narratives or captions, some of its phrases, a scale
- a scale above 1 shows a window of the picture, one below 1 a smaller picture; what is said goes along (`Scene.crop`).
  Pictures with a trace stay whole, as published
- pictures are mirrored where regions are learnt only, as published, and their phrases with them (`Scene.mirror`)
- prompts before a caption are phrasings of our own, as many as were published
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from wherein import images
from wherein.data import Sample
from wherein.data.captions import Captioned
from wherein.data.narratives import Narrative
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
PHRASES, REGIONS = 16, 100  # of a picture at most, as published
JITTER, WIDE = (0.75, 1.25), (0.1, 2.0)  # scales, as published; the second where regions are learnt
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


class Source(Protocol):
    """Pictures to learn from."""

    def __len__(self) -> int:
        """How many there are."""

    def lesson(self, index: int, rng: np.random.Generator) -> Lesson:
        """A lesson from one of them. Raises ImageError for a file that is no image."""


class Narratives:
    """Localized Narratives: whole pictures, of each one narrative, and where the mouse was at each of its words."""

    def __init__(self, narratives: Iterable[Narrative]) -> None:
        """Those without a trace are left out. Raises InputError where none is left."""
        by_image: dict[Path, list[Narrative]] = defaultdict(list)
        for one in narratives:
            if traces.trace(one.strokes, one.words) is not None:
                by_image[one.path].append(one)
        self._images = _some(list(by_image.values()), "narratives with a trace")

    def __len__(self) -> int:
        """Images."""
        return len(self._images)

    def lesson(self, index: int, rng: np.random.Generator) -> Lesson:
        """See Source."""
        own = self._images[index]
        told = own[int(rng.integers(len(own)))]
        image = images.load(told.path)
        traced = traces.trace(told.strokes, told.words)
        assert traced is not None
        boxes = traces.pixels(traced.boxes, image.shape[1], image.shape[0])
        words = list(WORD.finditer(told.caption))
        said = traces.by_words([word.group() for word in words], told.words, traced.valid)
        placed = [PlacedText(word.start(), word.end(), boxes[i]) for word, i in zip(words, said, strict=True) if i >= 0]
        return Lesson("narratives", _whole(image, told.caption, LONG, rng), tuple(placed))


class Captions:
    """Captions of whole pictures, of each one."""

    def __init__(self, captioned: Iterable[Captioned]) -> None:
        """Raises InputError where there is none."""
        self._images = _some(list(captioned), "captions")

    def __len__(self) -> int:
        """Images."""
        return len(self._images)

    def lesson(self, index: int, rng: np.random.Generator) -> Lesson:
        """See Source."""
        own = self._images[index]
        caption = own.captions[int(rng.integers(len(own.captions)))]
        return scaled(Lesson("captions", _whole(images.load(own.path), caption, SHORT, rng)), JITTER, rng)


class Phrases:
    """Phrases that mean one thing each, and its box; with `masks`, its mask, too."""

    def __init__(self, samples: Iterable[Sample], masks: bool = False) -> None:
        """Things without a mask, where masks are asked for, are left out. Raises InputError where nothing is left."""
        self.kind = "masks" if masks else "phrases"
        kept = (
            replace(one, objects=tuple(thing for thing in one.objects if thing.mask is not None or not masks))
            for one in samples
        )
        self._images = _some([one for one in kept if one.objects], self.kind)

    def __len__(self) -> int:
        """Images."""
        return len(self._images)

    def lesson(self, index: int, rng: np.random.Generator) -> Lesson:
        """See Source."""
        return scaled(Lesson(self.kind, _scene(self._images[index], PHRASES, rng, self.kind == "masks")), JITTER, rng)


class Regions:
    """Boxes and what is said of each, half of the pictures mirrored."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        """Raises InputError where there is no region."""
        self._images = _some([one for one in samples if one.objects], "regions")

    def __len__(self) -> int:
        """Images."""
        return len(self._images)

    def lesson(self, index: int, rng: np.random.Generator) -> Lesson:
        """See Source."""
        scene = _scene(self._images[index], REGIONS, rng)
        scene = replace(scene, questions=(REGION,) * len(scene.phrases))
        lesson = Lesson("regions", scene.mirror() if rng.random() < 0.5 else scene)
        return scaled(lesson, WIDE, rng)


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


def scaled(lesson: Lesson, scales: tuple[float, float], rng: np.random.Generator) -> Lesson:
    """A lesson at a scale between two: above 1, a window of its picture, unless that would hold nothing of what is
    said; else the picture made smaller.
    """
    scale, scene = rng.uniform(*scales), lesson.scene
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
    """Some of the things of a picture, and the questions that ask for them."""
    image = images.load(sample.path)
    height, width = image.shape[:2]
    sample.check(width, height)
    chosen = [sample.objects[i] for i in sorted(rng.permutation(len(sample.objects))[:most].tolist())]
    drawn = [thing.mask.decode(height, width) for thing in chosen if thing.mask is not None] if masks else []
    return Scene(
        image,
        tuple(thing.phrase for thing in chosen),
        tuple(REFER.format(phrase=thing.phrase) for thing in chosen),
        np.stack([thing.box for thing in chosen]),
        np.stack(drawn) if masks else None,
    )


def _some(found: list[T], what: str) -> list[T]:
    if not found:
        raise InputError(f"There are no {what} to learn from.")
    return found

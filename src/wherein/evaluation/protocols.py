"""How a method is asked: which images a protocol takes, and the loop that asks every phrase and keeps the records."""

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wherein import geometry, images
from wherein.data import LabelledBox, Mask, Sample, read_coco, read_pairs, read_refcoco
from wherein.data.entry import shown
from wherein.data.refcoco import INSTANCES
from wherein.errors import InputError
from wherein.evaluation.records import Corners, Journal, Outcome, Record
from wherein.grounding import Grounding
from wherein.locator import check_phrases

MAX_OBJECTS = 3
"""The most objects, crowds aside, that an image of the PIN protocol may have (CVPR'24, "up to 3 objects")."""


class Grounder(Protocol):
    """What is evaluated: anything with a name that grounds phrases in an image, as every method does."""

    @property
    def name(self) -> str:
        """The name under which its records are kept."""

    def ground(self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True) -> list[Grounding]:
        """One grounding for each phrase in an image uint8[H, W, 3]; never absent if `absent` is False."""


def pin(annotations: Path, folder: Path) -> Iterator[Sample]:
    """PIN's test images: those of a COCO file with one to three objects; each is asked for by its category name."""
    return (sample for sample in read_coco(annotations, folder) if 1 <= len(sample.objects) <= MAX_OBJECTS)


def pairs(annotations: Path, folder: Path) -> Iterator[Sample]:
    """Every pair of a file of phrase-box pairs."""
    return read_pairs(annotations, folder)


def refcoco(annotations: Path, folder: Path, split: str | None = None) -> Iterator[Sample]:
    """Every expression for every referred object of one split of RefCOCO's refs, which lie beside `instances.json`."""
    return read_refcoco(annotations, folder, split)


PROTOCOLS: dict[str, Callable[..., Iterator[Sample]]] = {"pin": pin, "pairs": pairs, "refcoco": refcoco}
"""The protocols by name: which samples of an annotation file and its images folder they ask about."""
_WITH_SPLITS = ("refcoco",)  # take the name of a split, too


def sources(protocol: str, annotations: Path) -> list[Path]:
    """The annotation files that a protocol reads when it is given this one."""
    return [annotations, annotations.with_name(INSTANCES)] if protocol == "refcoco" else [annotations]


def select(
    protocol: str, annotations: Path, folder: Path, limit: int | None = None, split: str | None = None
) -> list[Sample]:
    """The images a protocol asks about, at most the first `limit` of them, of one `split` where the data has several.

    Raises:
        InputError: the protocol is unknown, the annotations are unusable, none of their images is left, the limit is
            below 1, an image is missing, a phrase cannot be asked for, a mask does not fit the stated size of its
            image, or there is no such split.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"There is no protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}.")
    if limit is not None and limit < 1:
        raise InputError(f"The limit is {limit}, but at least 1 image must be evaluated.")
    if split is not None and protocol not in _WITH_SPLITS:
        raise InputError(f"The protocol {protocol} has no splits, but the split {split!r} was chosen.")
    chosen = {} if split is None else {"split": split}
    samples = list(itertools.islice(PROTOCOLS[protocol](annotations, folder, **chosen), limit))
    if not samples:
        raise InputError(f"No image in {annotations} fits the protocol {protocol!r}, so there is nothing to evaluate.")
    for sample in samples:
        if not os.path.isfile(sample.path):
            raise InputError(f"The image {shown(sample.name)} of {annotations} is not in the folder {folder}.")
        try:
            check_phrases(sample.phrases())
        except InputError as error:
            raise InputError(f"In {annotations}, image {shown(sample.name)}: {error}") from error
        _check_masks(sample)
    return samples


def run(samples: Iterable[Sample], methods: Sequence[Grounder], journal: Journal) -> Iterator[list[Outcome]]:
    """Ask every method for every distinct phrase of each image, all phrases in one call; yields image by image.

    A method sees the image and the phrases, never a box. What the journal holds already is not asked again.

    Raises:
        InputError: an image cannot be read, or does not have the size its annotation states.
    """
    for sample in samples:
        waiting = [method for method in methods if (sample.name, method.name) not in journal.done]
        if waiting:
            image = _load(sample)
            for method in waiting:
                journal.add(_ask(method, sample, image))
        yield [journal.done[sample.name, method.name] for method in methods]


def _check_masks(sample: Sample) -> None:
    """Find a mask that cannot be decoded before the work starts, as far as the size of the image is known."""
    height, width = sample.height, sample.width
    known = height is not None and width is not None and height * width <= images.MAX_PIXELS  # no other is loaded
    for mask in dict.fromkeys(labelled.mask for labelled in sample.objects if labelled.mask is not None):
        mask.check(height if known else None, width if known else None)


def _load(sample: Sample) -> NDArray[np.uint8]:
    image = images.load(sample.path)
    height, width = image.shape[:2]
    if (sample.width or width, sample.height or height) != (width, height):
        raise InputError(
            f"The annotation of {shown(sample.name)} is for {sample.width} x {sample.height} pixels, "
            f"but the image has {width} x {height}, so its boxes do not fit."
        )
    return image


def _ask(method: Grounder, sample: Sample, image: NDArray[np.uint8]) -> Outcome:
    phrases = sample.phrases()
    start = time.perf_counter()
    groundings = dict(zip(phrases, method.ground(image, phrases, absent=False), strict=True))
    seconds = time.perf_counter() - start
    records = tuple(_judge(groundings[truth.phrase], truth, *image.shape[:2]) for truth in sample.objects)
    return Outcome(sample.name, image.shape[1], image.shape[0], method.name, seconds, records)


def _judge(grounding: Grounding, truth: LabelledBox, height: int, width: int) -> Record:
    """Compare the best box of a grounding, and its mask, with a labelled box; no box at all is an invalid answer."""
    corners, absent = _corners(truth.box), grounding.absent_probability
    overlap = None if truth.mask is None else _overlap(grounding, truth.mask, height, width)
    if len(grounding.boxes) == 0:
        return Record(truth.phrase, corners, None, None, absent, 0.0, overlap)
    box, score = grounding.boxes[0], float(grounding.scores[0])
    iou = float(geometry.paired_iou(box[None], truth.box[None])[0])
    return Record(truth.phrase, corners, _corners(box), score, absent, iou, overlap)


def _overlap(grounding: Grounding, mask: Mask, height: int, width: int) -> tuple[int, int]:
    """Intersection and union in pixels of a true mask with the mask of a grounding, or its best box if it has none."""
    truth = mask.decode(height, width)
    if len(grounding.boxes) == 0:
        return 0, int(np.count_nonzero(truth))
    answer = _filled(grounding.boxes[0], height, width) if grounding.mask is None else grounding.mask
    return int(np.count_nonzero(truth & answer)), int(np.count_nonzero(truth | answer))


def _filled(box: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels bool[H, W] whose centre is in a box float64[4] of original pixels."""
    x0, y0, x1, y1 = np.ceil(geometry.clip(box[None], width, height)[0] - 0.5).astype(int)
    filled = np.zeros((height, width), dtype=np.bool_)
    filled[y0:y1, x0:x1] = True
    return filled


def _corners(box: NDArray[np.float64]) -> Corners:
    x0, y0, x1, y1 = (float(value) for value in box)
    return x0, y0, x1, y1

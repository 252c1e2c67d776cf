"""How a method is asked: which images a protocol takes, and the loop that asks every phrase and keeps the records."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wherein import geometry, images
from wherein.data import AUTO, Complain, Dataset, LabelledBox, Mask, Sample, open_dataset, refuse
from wherein.data.entry import shown
from wherein.data.mask import NeedsExtra
from wherein.errors import ImageError, InputError, PhraseError
from wherein.evaluation.records import Corners, Journal, NoTarget, Outcome, Record
from wherein.grounding import Grounding
from wherein.phrases import check_phrases

MAX_OBJECTS = 3
"""The most objects, crowds aside, that an image of the PIN protocol may have (CVPR'24, "up to 3 objects")."""
PUBLISHED = {("voc", "VOC2007 test"): 3582, ("coco", "val2017"): 2062, ("lvis", "lvis_v1_val"): 6016}
"""How many images PIN's paper evaluates on, by format and name of the data set: to check that we take the same."""


class Grounder(Protocol):
    """What is evaluated: anything with a name that grounds phrases in an image, as every method does."""

    @property
    def name(self) -> str:
        """The name under which its records are kept."""

    def ground(self, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool = True) -> list[Grounding]:
        """One grounding for each phrase in an image uint8[H, W, 3]; never absent if `absent` is False."""


def pin(sample: Sample) -> bool:
    """PIN's test images: those with one to three objects; each is asked for by its category name."""
    return 1 <= len(sample.objects) <= MAX_OBJECTS


def every_phrase(sample: Sample) -> bool:
    """Every image with a phrase that means something in it."""
    return bool(sample.objects)


PROTOCOLS: dict[str, Callable[[Sample], bool]] = {"pin": pin, "phrases": every_phrase, "pairs": every_phrase}
"""The protocols by name: which images of a data set they ask about. `pairs` is `phrases`, as lists of pairs call it."""


def asks_every_phrase(protocol: str) -> bool:
    """Whether a protocol asks for phrases, which may mean nothing in an image, and not for categories."""
    return PROTOCOLS[protocol] is every_phrase


def protocol_for(dataset: Dataset, name: str = AUTO) -> str:
    """The name of the protocol; "auto" is PIN's where all objects of some categories are labelled, else every phrase.

    Raises:
        InputError: there is no such protocol.
    """
    if name == AUTO:
        return "pin" if dataset.categories else "phrases"
    if name not in PROTOCOLS:
        raise InputError(f"There is no protocol {name!r}; choose one of {AUTO}, {', '.join(PROTOCOLS)}.")
    return name


def published(dataset: Dataset, protocol: str) -> int | None:
    """How many images of a data set PIN's paper evaluates on; None where it says nothing of that."""
    return PUBLISHED.get((dataset.format, dataset.name)) if protocol == "pin" else None


def select(
    protocol: str,
    data: Dataset | Path,
    folder: Path | None = None,
    limit: int | None = None,
    split: str | None = None,
    complain: Complain = refuse,
    no_target: bool = False,
) -> list[Sample]:
    """The images a protocol asks about, at most the first `limit` of them, without those that have a bad record.

    `data` is a data set, or what `open_dataset` opens with `folder`, its images, and `split`. `no_target`: also images
    all of whose phrases mean nothing in them, where a protocol asks every phrase. What is found here is a record that
    cannot be used, an image that is missing, a phrase that cannot be asked for, and a mask or a box that does not fit
    the stated size of its image.

    Raises:
        InputError: the protocol is unknown, the limit is below 1, the data set is unusable as a whole or none of its
            images with a labelled box is left; or, as `complain` decides, there is a bad record.
    """
    if limit is not None and limit < 1:
        raise InputError(f"The limit is {limit}, but at least 1 image must be evaluated.")
    dataset = data if isinstance(data, Dataset) else open_dataset(data, folder, AUTO, split)
    name = protocol_for(dataset, protocol)
    takes, more = PROTOCOLS[name], no_target and asks_every_phrase(name)
    samples: list[Sample] = []
    for sample in dataset.samples(complain):
        if not takes(sample) and not (more and sample.absent):
            continue
        if _usable(sample, complain):
            samples.append(sample)
        if len(samples) == limit:
            break
    if not any(sample.objects for sample in samples):
        raise InputError(f"No image of {dataset.files[0]} is left for the protocol {protocol!r}: nothing to evaluate.")
    return samples


def askable(samples: Iterable[Sample], check: Callable[[str], None], complain: Complain) -> list[Sample]:
    """The samples without those that have a phrase which `check`, a model's, refuses; `complain` is told.

    Raises:
        InputError: as `complain` decides.
    """
    kept: list[Sample] = []
    refused: dict[str, InputError | None] = {}
    for sample in samples:
        for phrase in set(_phrases(sample)) - set(refused):
            refused[phrase] = None
            try:
                check(phrase)
            except InputError as error:
                refused[phrase] = error
        bad = [why for phrase in _phrases(sample) if (why := refused[phrase])]
        for why in bad:
            complain(InputError(f"{_place(sample)}: {why}"))
        kept += [] if bad else [sample]
    return kept


def run(
    samples: Iterable[Sample],
    methods: Sequence[Grounder],
    journal: Journal,
    complain: Complain = refuse,
    no_target: bool = False,
) -> Iterator[list[Outcome]]:
    """Ask every method for every distinct phrase of each image, all phrases in one call; yields image by image.

    A method sees the image and the phrases, never a box. `no_target`: it is also asked, in a call of its own in which
    it may answer absent, for the phrases that mean nothing in the image. What the journal holds already is not asked
    again. An image that cannot be read, has another size than its annotation states or needs, or is refused by one of
    the methods, itself or a phrase of it, is left out; what others answered of it stays in the journal.

    Raises:
        InputError: as `complain` decides, an image is left out.
    """
    for sample in samples:
        waiting = [method for method in methods if (sample.name, method.name) not in journal.done]
        if waiting:
            try:
                image = sample.load()
            except NeedsExtra:
                raise
            except InputError as error:
                complain(error)
                continue
            try:
                for method in waiting:
                    journal.add(_ask(method, sample, image, sample.absent if no_target else ()))
            except (ImageError, PhraseError) as error:  # other errors are not about this image
                complain(type(error)(f"{_place(sample)}, image {shown(sample.name)}: {error}"))
                continue
        yield [journal.done[sample.name, method.name] for method in methods]


def _usable(sample: Sample, complain: Complain) -> bool:
    """Find, before the work starts, what would be in its way; `complain` is told."""
    height, width = sample.height, sample.width
    known = height is not None and width is not None and height * width <= images.MAX_PIXELS  # no other is loaded
    try:
        if not os.path.isfile(sample.path):
            raise InputError(f"{_place(sample)}: there is no image {sample.path}.")
        try:
            check_phrases(_phrases(sample))
        except InputError as error:
            raise InputError(f"{_place(sample)}, image {shown(sample.name)}: {error}") from error
        sample.check_masks(width if known else None, height if known else None)
    except NeedsExtra:  # of this image no more than of any other
        raise
    except InputError as error:
        complain(error)
        return False
    return True


def _phrases(sample: Sample) -> list[str]:
    """The phrases of the objects, and those that mean nothing in the image."""
    return [*sample.phrases(), *sample.absent]


def _place(sample: Sample) -> str:
    return sample.where or str(sample.path)


def _ask(method: Grounder, sample: Sample, image: NDArray[np.uint8], no_target: Sequence[str]) -> Outcome:
    start = time.perf_counter()
    groundings = _grounded(method, image, sample.phrases(), absent=False)
    seconds = time.perf_counter() - start
    records = tuple(_judge(groundings[truth.phrase], truth, *image.shape[:2]) for truth in sample.objects)
    free = _grounded(method, image, list(dict.fromkeys(no_target)), absent=True)
    said = tuple(NoTarget(phrase, free[phrase].absent, free[phrase].absent_probability) for phrase in no_target)
    return Outcome(sample.name, image.shape[1], image.shape[0], method.name, seconds, records, said)


def _grounded(method: Grounder, image: NDArray[np.uint8], phrases: Sequence[str], absent: bool) -> dict[str, Grounding]:
    """The answers of a method by phrase; it is not asked for nothing."""
    return dict(zip(phrases, method.ground(image, phrases, absent=absent), strict=True)) if phrases else {}


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
    ignored = mask.ignored(height, width)
    if ignored is not None:
        answer = answer & ~ignored
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

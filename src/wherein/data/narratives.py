"""Reader of Localized Narratives: people say what they see while they move the mouse over it.

Annotations CC BY 4.0 (Pont-Tuset et al., ECCV'20); images of MS-COCO, Flickr30k, ADE20K and Open Images, each set under
its own terms. The narratives of train splits may be trained on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wherein.data.complaint import Complain, refuse
from wherein.data.entry import Entry, is_number, shown
from wherein.data.files import read_lines
from wherein.errors import InputError

_COCO_DIGITS = 12  # of the file of an image of MS-COCO, which the narratives name by its number


class Utterance(NamedTuple):
    """Some words of a caption, and when they were said: from `start` to `end`, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, eq=False)
class Narrative:
    """One person's words on one image. An image may have several narratives.

    `name` is its path inside the images folder. The words are in the order of speech, and together nearly the caption.
    Each stroke of the mouse is float64[N, 3]: x and y, 0..1, as shares of the image's width and height, and the time in
    seconds. Where the mouse left the image, x or y is a little below 0 or above 1. `where` names file and line for
    complaints.
    """

    name: str
    path: Path
    caption: str
    words: tuple[Utterance, ...]
    strokes: tuple[NDArray[np.float64], ...]
    where: str


def read_narratives(annotations: Path, images: Path, complain: Complain = refuse) -> Iterator[Narrative]:
    """The narratives of a file of JSON lines in its order, one line in memory at a time; no image is opened.

    Raises:
        InputError: the file cannot be read; or, as `complain` decides, a line is unusable.
    """
    for entry in read_lines(annotations, complain):
        try:
            narrative = _narrative(entry, images)
        except InputError as error:
            complain(error)
        else:
            yield narrative


def _narrative(entry: Entry, images: Path) -> Narrative:
    name = _file(entry)
    words = tuple(
        Utterance(_said(word), word.number("start_time"), word.number("end_time"))
        for word in entry.entries("timed_caption")
    )
    strokes = tuple(_stroke(value, f"{entry.where}, traces[{i}]") for i, value in enumerate(entry.values("traces")))
    return Narrative(name, images / name, entry.text("caption"), words, strokes, entry.where)


def _file(entry: Entry) -> str:
    """The file of the image as the set that it is from calls it; the narratives give its identifier only."""
    image = str(entry.key("image_id"))
    if entry.text("dataset_id").startswith("mscoco"):
        image = image.zfill(_COCO_DIGITS)
    return Entry({"image_id": f"{image}.jpg"}, entry.where).image_name("image_id")


def _said(word: Entry) -> str:
    """Nothing at all is said at times, so unlike other texts this may be empty."""
    text = word.field("utterance")
    if not isinstance(text, str):
        raise InputError(f"{word.where} has utterance {shown(text)}, but it must be a text.")
    return text.strip()


def _stroke(points: Any, where: str) -> NDArray[np.float64]:
    """The points `{"x", "y", "t"}` of a stroke, float64[N, 3]; there are too many of them for an `Entry` each."""
    try:
        numbers = [point[axis] for point in points for axis in ("x", "y", "t")]
    except (KeyError, TypeError) as error:
        raise InputError(f'{where} must be a list of points {{"x", "y", "t"}}.') from error
    if not all(map(is_number, numbers)):
        raise InputError(f"{where} has a point that is not of finite numbers.")
    return np.array(numbers, dtype=np.float64).reshape(-1, 3)

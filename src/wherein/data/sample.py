"""What every reader of real data yields."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from wherein import images
from wherein.data.complaint import Complain
from wherein.data.entry import Entry, shown
from wherein.data.mask import Mask
from wherein.errors import ImageError, InputError
from wherein.geometry import area

SLACK = 1
"""Pixels by which a box may hang over its image: data sets round, and some count pixels from 1."""
Key = int | str
T = TypeVar("T")


class LabelledBox(NamedTuple):
    """One object of an image: its phrase, its box float64[4] xyxy in original pixels, its mask where there is one.

    `where` names file and record for complaints, such as `annotations.json, annotations[7]`. Several boxes of one
    phrase are several objects that it means.
    """

    phrase: str
    box: NDArray[np.float64]
    mask: Mask | None = None
    where: str = ""

    @property
    def has_area(self) -> bool:
        """Whether its box has any: people label lines and points, too, of which no answer can be learnt."""
        return bool(area(self.box[None])[0] > 0)


@dataclass(frozen=True, eq=False)
class Sample:
    """One image of a data set with the objects people labelled in it.

    `name` is its path inside the images folder, unique in the data set. `width` and `height` are what the annotation
    states, in pixels, or None where it states nothing. `where` names file and record of the image for complaints.
    `absent` are phrases that people wrote for this image and that mean nothing in it.
    """

    name: str
    path: Path
    width: int | None
    height: int | None
    objects: tuple[LabelledBox, ...]
    where: str = ""
    absent: tuple[str, ...] = ()

    def phrases(self) -> list[str]:
        """The distinct phrases of the objects, in the order of the annotation."""
        return list(dict.fromkeys(labelled.phrase for labelled in self.objects))

    def check(self, width: int | None, height: int | None) -> None:
        """Find a box that is outside an image of this size in pixels by more than `SLACK`; None is not known.

        Raises:
            InputError: there is one; the message names its record.
        """
        right, bottom = (np.inf if side is None else side + SLACK for side in (width, height))
        for labelled in self.objects:
            x0, y0, x1, y1 = labelled.box.tolist()
            if x0 < -SLACK or y0 < -SLACK or x1 > right or y1 > bottom:
                size = "" if width is None or height is None else f" of {width} x {height} pixels"
                raise InputError(
                    f"{labelled.where or self.name} has the box {[round(side, 1) for side in (x0, y0, x1, y1)]} "
                    f"(x0, y0, x1, y1), which is not inside its image{size}."
                )

    def load(self) -> NDArray[np.uint8]:
        """The image uint8[H, W, 3], after all that its annotation says was found to fit it.

        Raises:
            ImageError: it is no image.
            InputError: it is not of the stated size, or has a box or a mask outside it.
        """
        image = self.boxed()
        self.check_masks(image.shape[1], image.shape[0])
        return image

    def boxed(self) -> NDArray[np.uint8]:
        """The same, whatever its masks: where boxes are all that is used. Raises as `load` does."""
        image = self.image()
        self.check(image.shape[1], image.shape[0])
        return image

    def image(self) -> NDArray[np.uint8]:
        """The image uint8[H, W, 3]. Raises ImageError for none, InputError for one that is not of the stated size."""
        place = self.where or str(self.path)
        try:
            image = images.load(self.path)
        except ImageError as error:
            raise ImageError(f"{place}: {error}") from error
        height, width = image.shape[:2]
        if (self.width or width, self.height or height) != (width, height):
            raise InputError(
                f"{place}: the annotation of {shown(self.name)} is for {self.width} x {self.height} pixels, "
                f"but the image has {width} x {height}, so its boxes do not fit."
            )
        return image

    def check_masks(self, width: int | None, height: int | None) -> None:
        """Find a mask that does not fit an image of this size in pixels; None is not known. Raises InputError."""
        for mask in dict.fromkeys(labelled.mask for labelled in self.objects if labelled.mask is not None):
            mask.check(height, width)


class Gathered:
    """What a file says of each image, by the image's key, while the file is read record by record."""

    def __init__(self, complain: Complain) -> None:
        self.objects: dict[Key, list[LabelledBox]] = defaultdict(list)
        self.absent: dict[Key, list[str]] = defaultdict(list)
        self._spoilt: set[Key] = set()
        self._complain = complain

    def spoil(self, key: Key | None, error: InputError) -> None:
        """Complain of a record and leave its image out; None where it does not say which image that is."""
        self._complain(error)
        if key is not None:
            self._spoilt.add(key)

    def samples(self, pictures: dict[Key, Entry], images: Path, name: Callable[[Entry], str]) -> Iterator[Sample]:
        """A sample for each image entry that nothing spoils, in order; `name` tells its path inside the folder."""
        names = self._names(pictures, name)

        def sample(key: Key) -> Sample:
            """That of the image entry with this id, whose objects are not needed any more."""
            entry, objects, absent = pictures[key], self.objects.pop(key, ()), self.absent.pop(key, ())
            width, height = entry.side("width"), entry.side("height")
            file = names[key]
            return Sample(file, images / file, width, height, tuple(objects), entry.where, tuple(absent))

        return each([key for key in names if key not in self._spoilt], sample, self._complain)

    def _names(self, pictures: dict[Key, Entry], name: Callable[[Entry], str]) -> dict[Key, str]:
        """The file of each image; of those that share one, it is not known what is in it."""
        first: dict[str, Key] = {}
        for key, entry in pictures.items():
            try:
                file = name(entry)
                if first.setdefault(file, key) != key:
                    self._spoilt |= {key, first[file]}
                    raise InputError(f"{entry.where} repeats the file_name {shown(file)} of an earlier image.")
            except InputError as error:
                self.spoil(key, error)
        return {key: file for file, key in first.items()}


def each(items: Iterable[T], sample: Callable[[T], Sample], complain: Complain) -> Iterator[Sample]:
    """The sample of each item; what cannot be made, or has a box outside its image, is complained of and left out."""
    for item in items:
        try:
            made = sample(item)
            made.check(made.width, made.height)
        except InputError as error:
            complain(error)
        else:
            yield made

"""What every reader of real data yields."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wherein.data.entry import Entry, shown
from wherein.data.mask import Mask
from wherein.errors import InputError


class LabelledBox(NamedTuple):
    """One object of an image: its phrase, its box float64[4] xyxy in original pixels, its mask where there is one."""

    phrase: str
    box: NDArray[np.float64]
    mask: Mask | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """One image of a data set with the objects people labelled in it.

    `name` is its path inside the images folder, unique in the data set. `width` and `height` are what the annotation
    states, in pixels, or None where it states nothing.
    """

    name: str
    path: Path
    width: int | None
    height: int | None
    objects: tuple[LabelledBox, ...]

    def phrases(self) -> list[str]:
        """The distinct phrases of the objects, in the order of the annotation."""
        return list(dict.fromkeys(labelled.phrase for labelled in self.objects))


def join(
    pictures: Mapping[int | str, Entry], objects: Mapping[int | str, Sequence[LabelledBox]], images: Path
) -> Iterator[Sample]:
    """A sample for each image entry of a COCO-format file, in their order, with the objects kept under the same id.

    Raises:
        InputError: an image entry is unusable, or names the file of an earlier one.
    """
    seen: set[str] = set()
    for key, entry in pictures.items():
        name = entry.image_name("file_name")
        if name in seen:
            raise InputError(f"{entry.where} repeats the file_name {shown(name)} of an earlier image.")
        seen.add(name)
        yield Sample(name, images / name, entry.side("width"), entry.side("height"), tuple(objects.get(key, ())))

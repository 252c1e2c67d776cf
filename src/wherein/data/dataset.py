"""A data set on disk, as a format finds it, and what its finders share."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from wherein.data.complaint import Complain, refuse
from wherein.data.entry import shown
from wherein.data.sample import Sample
from wherein.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set that was found, none of it read yet.

    Attributes:
        format: its name in `wherein.data.FORMATS`.
        name: what people call it, such as `VOC2007 test`; it tells the published sets.
        files: everything that is read, the images aside; one that a list names may be missing.
        read: gives the samples.
        categories: the phrases are names of categories, and every object of them is labelled.
        split: the part of it that is read, None where it has no parts.
    """

    format: str
    name: str
    files: tuple[Path, ...]
    read: Callable[[Complain], Iterator[Sample]]
    categories: bool = False
    split: str | None = None

    def samples(self, complain: Complain = refuse) -> Iterator[Sample]:
        """Its images, one after the other; no image with a bad record is among them, and `complain` is told of each.

        Raises:
            InputError: a file as a whole is unusable.
        """
        return self.read(complain)

    def digest(self) -> str:
        """SHA-256 of its files, in hexadecimal."""
        whole = hashlib.sha256()
        for path in self.files:
            try:
                with path.open("rb") as file:
                    whole.update(hashlib.file_digest(file, "sha256").digest())
            except OSError:  # its reader complains
                whole.update(b"missing")
        return whole.hexdigest()


def pick(where: str, splits: Mapping[str, T], split: str | None) -> tuple[str, T]:
    """The split that was chosen, or the only one there is; `where` begins the complaint, such as `x.json has`.

    Raises:
        InputError: there is no such split, or several of which none was chosen.
    """
    if split is None and len(splits) == 1:
        return next(iter(splits.items()))
    if split is None or split not in splits:
        given = "none was chosen" if split is None else f"{split!r} is not among them"
        raise InputError(f"{where} the splits {', '.join(map(shown, sorted(splits)))}, and {given}: choose one.")
    return split, splits[split]


def no_split(path: Path, split: str | None) -> None:
    """Check that no split of an undivided data set was chosen.

    Raises:
        InputError: one was.
    """
    if split is not None:
        raise InputError(f"{path} has no splits, but the split {split!r} was chosen.")


def folder_of(path: Path, images: Path | None, usual: Iterable[Path]) -> Path:
    """The folder of a data set's images: the one that was given, or else the first usual one that is there.

    Raises:
        InputError: there is none.
    """
    if images is not None and not os.path.isdir(images):
        raise InputError(f"There is no folder of images {images}.")
    for folder in usual if images is None else [images]:
        if os.path.isdir(folder):
            return folder
    raise InputError(f"The images of {path} are in no usual place: give their folder as well (--images).")

"""Cut-outs: pictures of single objects with alpha and a name, and the bank that holds them."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from wherein import images
from wherein.errors import ImageError, InputError
from wherein.synth.fingerprint import fingerprint
from wherein.synth.names import tidy

IMAGE_SUFFIXES = (".webp", ".png")
INDEX = "index.json"


@dataclass(frozen=True, eq=False)
class Cutout:
    """One object with a transparent background.

    name: a lower-case singular noun ("camel"); encoded: the image file's bytes, or where it lies; source: the
    collection and file it comes from; licence: of that collection; photographic: a photograph rather than a drawing.
    """

    name: str
    encoded: bytes | Path
    source: str
    licence: str
    photographic: bool

    @property
    def rgba(self) -> NDArray[np.uint8]:
        """uint8[H, W, 4], decoded anew each time: a folder may hold more than fits into memory.

        Raises:
            ImageError: the bytes are no image, or the file is gone.
        """
        try:
            return images.load(self.encoded, alpha=True)
        except ImageError as error:
            raise ImageError(f"The cut-out {self.source} ({self.name}) is not a readable image: {error}.") from error


class ObjectBank:
    """An immutable collection of cut-outs, grouped by name.

    Iterating gives the cut-outs in a fixed order; `bank[i]` is the i-th one.
    """

    def __init__(self, cutouts: Iterable[Cutout]) -> None:
        self._cutouts = tuple(cutouts)
        self._groups: dict[str, list[int]] = {}
        for index, cutout in enumerate(self._cutouts):
            self._groups.setdefault(cutout.name, []).append(index)
        self._names = tuple(sorted(self._groups))

    @classmethod
    def load(cls) -> ObjectBank:
        """The bank in the package: Fluent emoji (MIT) and Open Clip Art (public domain)."""
        with (
            files("wherein.synth").joinpath("bank/objects.zip").open("rb") as stream,
            zipfile.ZipFile(stream) as archive,
        ):
            return cls(_indexed(archive.read(INDEX), archive.read, INDEX))

    @classmethod
    def from_folder(cls, path: str | Path) -> ObjectBank:
        """A folder of RGBA images: either with an index.json as the recipe writes it, or with one sub-folder per name.

        Names are made tidy (`wherein.synth.names.tidy`); hidden files and folders are left out.

        Raises InputError when the folder holds neither, a name has no cut-out or is unusable, or its index.json does
        not fit or is empty.
        """
        folder = Path(path)
        index = folder / INDEX
        if index.is_file():
            try:
                bank = cls(_indexed(index.read_bytes(), lambda file: _inside(folder, file), str(index)))
            except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
                raise InputError(
                    f"{index} is no list of cut-outs with file, name, source, licence and photographic: {error!r}."
                ) from error
            if not len(bank):
                raise InputError(f"{index} lists no cut-outs: give a folder that has some.")
            return bank
        pictures = []
        for below in sorted(path for path in folder.glob("[!.]*") if path.is_dir()):
            own = [file for file in below.glob("[!.]*") if file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES]
            if not own:
                raise InputError(
                    f"{below} holds no .png or .webp file: give that name a cut-out, or remove the folder."
                )
            pictures += sorted(own)
        if not pictures:
            raise InputError(
                f"No cut-outs in {folder}: expected {INDEX} or one sub-folder of .png/.webp files per name."
            )
        names = {sub: tidy(sub.name, f"The folder {sub}") for sub in {file.parent: None for file in pictures}}
        return cls(Cutout(names[file.parent], file, str(file), "user's own", True) for file in pictures)

    @property
    def names(self) -> tuple[str, ...]:
        """The distinct names, sorted."""
        return self._names

    @property
    def licences(self) -> str:
        """How many cut-outs are under which licence, most first: "704 MIT, 322 public domain"."""
        counts = Counter(cutout.licence for cutout in self._cutouts)
        return ", ".join(f"{count} {licence}" for licence, count in counts.most_common())

    @property
    def fingerprint(self) -> str:
        """Of every cut-out's name and picture, in order; reads them all. Raises ImageError for one that is gone."""
        return fingerprint((cutout.name, cutout.encoded) for cutout in self._cutouts)

    def indices(self, name: str) -> list[int]:
        """Positions in the bank of the cut-outs called `name`. Raises InputError for a name that is not in the bank."""
        if name not in self._groups:
            raise InputError(f"The object bank has no {name!r}: see ObjectBank.names for the {len(self._names)} names.")
        return self._groups[name]

    def keep(self, wanted: Callable[[Cutout], bool]) -> ObjectBank:
        """A bank of the cut-outs for which `wanted` is true."""
        return ObjectBank(cutout for cutout in self._cutouts if wanted(cutout))

    def without(self, held_out: Callable[[str], bool]) -> ObjectBank:
        """A bank without the names for which `held_out` is true (see holdout.is_held_out)."""
        return self.keep(lambda cutout: not held_out(cutout.name))

    def __add__(self, other: ObjectBank) -> ObjectBank:
        return ObjectBank((*self._cutouts, *other._cutouts))

    def __len__(self) -> int:
        return len(self._cutouts)

    def __iter__(self) -> Iterator[Cutout]:
        return iter(self._cutouts)

    def __getitem__(self, index: int) -> Cutout:
        return self._cutouts[index]


def _indexed(index: bytes, read: Callable[[str], bytes | Path], where: str) -> Iterator[Cutout]:
    """The cut-outs an index.json lists, in its order; `where` names it in the complaint about a name."""
    for row in json.loads(index):
        texts = [row[key] for key in ("name", "file", "source", "licence")]
        if not all(isinstance(text, str) for text in texts) or not isinstance(row["photographic"], bool):
            raise TypeError(f"{str(row):.200} must hold four texts, and photographic as true or false")
        name, file, source, licence = texts
        yield Cutout(tidy(name, f"A name in {where}"), read(file), source, licence, row["photographic"])


def _inside(folder: Path, file: str) -> Path:
    """A file that an index names; it must lie in the index's folder."""
    path = folder / file
    if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts or not path.is_file():
        raise ValueError(f"there is no {file!r} in the folder")
    return path

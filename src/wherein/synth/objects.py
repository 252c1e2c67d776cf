"""Cut-outs: pictures of single objects with alpha and a name, and the bank that holds them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from wherein import images
from wherein.errors import ImageError, InputError

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
            return load_rgba(self.encoded)
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
            return cls(_indexed(archive.read(INDEX), archive.read))

    @classmethod
    def from_folder(cls, path: str | Path) -> ObjectBank:
        """A folder of RGBA images: either with an index.json as the recipe writes it, or with one sub-folder per name.

        Raises InputError when the folder holds neither, or when its index.json does not fit.
        """
        folder = Path(path)
        index = folder / INDEX
        if index.is_file():
            try:
                return cls(_indexed(index.read_bytes(), lambda file: _inside(folder, file)))
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise InputError(
                    f"{index} is no list of cut-outs with file, name, source, licence and photographic: {error!r}."
                ) from error
        pictures = sorted(file for file in folder.glob("*/*") if file.suffix.lower() in IMAGE_SUFFIXES)
        if not pictures:
            raise InputError(
                f"No cut-outs in {folder}: expected {INDEX} or one sub-folder of .png/.webp files per name."
            )
        return cls(
            Cutout(file.parent.name.replace("_", " ").lower(), file, str(file), "user's own", True) for file in pictures
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The distinct names, sorted."""
        return self._names

    def indices(self, name: str) -> list[int]:
        """Positions in the bank of the cut-outs called `name`. Raises InputError for a name that is not in the bank."""
        if name not in self._groups:
            raise InputError(f"The object bank has no {name!r}: see ObjectBank.names for the {len(self._names)} names.")
        return self._groups[name]

    def by_name(self, name: str) -> tuple[Cutout, ...]:
        """The cut-outs called `name`. Raises InputError for a name that is not in the bank."""
        return tuple(self._cutouts[index] for index in self.indices(name))

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


def load_rgba(source: bytes | Path) -> NDArray[np.uint8]:
    """An image file, or the bytes of one, as uint8[H, W, 4], upright; opaque where it has no alpha.

    Raises:
        ImageError: as of `wherein.images.load`.
    """
    rgb = images.load(source)  # the limits and all checks; it shows transparency on white, so the alpha is read again
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        if not image.has_transparency_data:
            return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
        return np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))


def _indexed(index: bytes, read: Callable[[str], bytes | Path]) -> Iterator[Cutout]:
    """The cut-outs an index.json lists, in its order."""
    for row in json.loads(index):
        yield Cutout(row["name"], read(row["file"]), row["source"], row["licence"], row["photographic"])


def _inside(folder: Path, file: str) -> Path:
    """A file that an index names; it must lie in the index's folder."""
    path = folder / file
    if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts or not path.is_file():
        raise ValueError(f"there is no {file!r} in the folder")
    return path

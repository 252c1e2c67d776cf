"""Picture files: refused before the work starts, written whole or not at all."""

import io
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wherein.errors import InputError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_JPEG_SIDE = 65_500  # pixels that libjpeg takes


def check_file(path: Path) -> None:
    """Raise InputError unless a picture can be written to `path`; to be asked before a model is loaded."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path} is not a name for a picture: it must end in {', '.join(FORMATS)}.")
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder: give the name of a file in it, such as {path / 'out.png'}.")
    check_name(path)
    check_folder(path.parent)


def check_name(path: Path) -> None:
    """Raise InputError where the name of `path`, which need not be there, is longer than its file system takes."""
    with _refused(path.parent), suppress(FileNotFoundError):
        os.lstat(path)


def check_folder(folder: Path) -> None:
    """Raise InputError unless a file can be made in `folder`; one is made and dropped, as permissions prove little."""
    with _refused(folder), tempfile.TemporaryFile(dir=folder):
        pass


def check_new_folder(folder: Path) -> None:
    """The same of a folder that need not be there yet: what had to be made to find out is gone again afterwards."""
    new = [place for place in (folder, *folder.parents) if not os.path.exists(place)]
    try:
        make_folder(folder)
        check_folder(folder)
    finally:
        for place in new:
            with suppress(OSError):  # it could not be made, or somebody uses it already
                place.rmdir()


def make_folder(folder: Path) -> None:
    """Make `folder` where it is not there yet, and what it lies in. Raises InputError where that cannot be done."""
    with _refused(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _refused(folder: Path) -> Iterator[None]:
    """What the disk refuses within raises InputError, which names the folder."""
    try:
        yield
    except OSError as error:
        raise InputError(f"No file can be written in the folder {folder}: {error.strerror}.") from error


def write(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write uint8[H, W, 3] to `path`, in the format of its suffix; a reader of `path` never sees half a picture.

    Raises:
        InputError: the suffix is none of `FORMATS`, its format does not take so many pixels, or the file cannot be
            written.
    """
    check_file(path)
    kind = FORMATS[path.suffix.lower()]
    if kind == "JPEG" and max(pixels.shape) > _JPEG_SIDE:
        raise InputError(f"The picture {path} cannot be written: JPEG holds at most 65,500 pixels a side; use .png.")
    partial = path.with_name(f".wherein-{uuid.uuid4().hex}.part")
    try:
        with partial.open("xb") as stream:
            Image.fromarray(pixels).save(stream, format=kind, quality=95)
        partial.replace(path)
    except OSError as error:
        raise InputError(f"The picture {path} cannot be written: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def of_figure(figure: Any) -> NDArray[np.uint8]:
    """A figure of matplotlib as pixels uint8[H, W, 3]."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return np.asarray(Image.open(stream).convert("RGB"))

"""A folder of the user's own pictures: one sub-folder per name."""

from __future__ import annotations

from pathlib import Path

from wherein import images
from wherein.errors import ImageError, InputError
from wherein.synth.making import Item
from wherein.synth.names import folder_of, tidy


def find_pictures(folder: Path, licence: str) -> tuple[list[Item], list[str]]:
    """The pictures in the sub-folders, each called after its sub-folder, and a sentence for each that is unusable.

    Raises:
        InputError: it is no folder, or has no sub-folder with a picture.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give one that has a sub-folder of pictures for each name.")
    items: list[Item] = []
    complaints: list[str] = []
    named: dict[str, Path] = {}
    for sub in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        try:
            name = tidy(sub.name, f"The folder {sub}")
            if named.setdefault(name, sub) != sub:
                raise InputError(f"The folders {named[name]} and {sub} are both named {name!r}: make them one.")
            items += [_item(name, file, licence) for file in images.list_images(sub)]
        except InputError as error:
            complaints.append(str(error))
    if not items:
        raise InputError(
            f"No sub-folder of {folder} holds a picture: it must have one sub-folder of pictures for each name."
            + (f" {complaints[0]}" if complaints else "")
        )
    return items, complaints


def _item(name: str, file: Path, licence: str) -> Item:
    try:
        facts = file.stat()
    except OSError as error:
        raise ImageError(f"{file} cannot be read: {error.strerror or error}.") from error
    stamp = f"{facts.st_size}-{facts.st_mtime_ns}"
    return Item(name, f"{folder_of(name)}/{file.name}", file, stamp, f"{file.parent.name}/{file.name}", licence)

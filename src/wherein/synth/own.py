"""A folder of the user's own pictures: one sub-folder per name."""

from __future__ import annotations

from pathlib import Path

from wherein import images
from wherein.errors import InputError
from wherein.journal import stamp_of
from wherein.synth.making import Item, cutout_file
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
            made: dict[str, Path] = {}
            complaints += [f"{file} is in a format that is not read." for file in images.list_unread(sub)]
            for file in images.list_images(sub):
                if not file.is_file():
                    complaints.append(f"{file} is a link to a file that is not there.")
                    continue
                item = _item(name, file, licence)
                other = made.setdefault(cutout_file(item.key), file)
                if other == file:
                    items.append(item)
                else:
                    complaints.append(f"The cut-outs of {other} and {file} would have one name: rename one of the two.")
        except InputError as error:
            complaints.append(str(error))
    if not items:
        raise InputError(
            f"No sub-folder of {folder} holds a picture: it must have one sub-folder of pictures for each name."
            + (f" {complaints[0]}" if complaints else "")
        )
    return items, complaints


def _item(name: str, file: Path, licence: str) -> Item:
    key, source = f"{folder_of(name)}/{file.name}", f"{file.parent.name}/{file.name}"
    return Item(name, key, file, stamp_of(file), source, licence)

"""Reader of COCO's captions (Chen et al., 2015): some five sentences on each image, by different people.

Annotations CC BY 4.0, images under the terms of Flickr. The train split may be trained on; val is for evaluation.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wherein.data.complaint import Complain, refuse
from wherein.data.entry import Entry, shown
from wherein.data.files import read_json
from wherein.data.sample import Key
from wherein.errors import InputError


@dataclass(frozen=True)
class Captioned:
    """An image of the folder, by its path in there, with all its captions in the order of the file."""

    name: str
    path: Path
    captions: tuple[str, ...]


def read_captions(annotations: Path, images: Path, complain: Complain = refuse) -> Iterator[Captioned]:
    """The images of a file such as `captions_train2017.json` in its order, those without a caption left out; no image
    is opened.

    Raises:
        InputError: the file cannot be read; or, as `complain` decides, a record is unusable.
    """
    root = Entry(read_json(annotations), f"The annotation file {annotations}")
    names = _names(root, complain)
    said: dict[Key, list[str]] = defaultdict(list)
    for entry in root.entries("annotations", complain):
        try:
            said[entry.reference("image_id", names, "image")].append(entry.text("caption"))
        except InputError as error:
            complain(error)
    for key, name in names.items():
        if said[key]:
            yield Captioned(name, images / name, tuple(said[key]))


def _names(root: Entry, complain: Complain) -> dict[Key, str]:
    """The file of each image, by its id."""
    names: dict[Key, str] = {}
    for entry in root.entries("images", complain):
        try:
            name, key = entry.image_name("file_name"), entry.key("id")
            if names.setdefault(key, name) != name:
                raise InputError(f"{entry.where} repeats the id {shown(key)} of an earlier image.")
        except InputError as error:
            complain(error)
    return names

"""Reader of COCO detection files: one JSON with `images`, `annotations` and `categories`, beside a folder of images."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wherein.data.sample import Entry, LabelledBox, Sample, read_json, shown
from wherein.errors import InputError


def read_coco(annotations: Path, images: Path) -> Iterator[Sample]:
    """The images of a COCO file in its order, each with all its objects; no image is opened.

    Crowd annotations are left out. The phrase of an object is the name of its category in lower case.

    Raises:
        InputError: the file cannot be read, or an entry of it is unusable; the message names both.
    """
    content = read_json(annotations)
    if isinstance(content, list):
        raise InputError(f"The annotation file {annotations} is a list, so not COCO format; is it a list of pairs?")
    data = Entry(content, f"The annotation file {annotations}")
    names = {key: entry.text("name").lower() for key, entry in _table(data, annotations, "categories").items()}
    pictures = _table(data, annotations, "images")
    objects: dict[int | str, list[LabelledBox]] = defaultdict(list)
    for entry in _entries(data, annotations, "annotations"):
        if entry.flag("iscrowd"):
            continue
        image, category = entry.key("image_id"), entry.key("category_id")
        if image not in pictures:
            raise InputError(f"{entry.where} has image_id {shown(image)}, but no image has this id.")
        if category not in names:
            raise InputError(f"{entry.where} has category_id {shown(category)}, but no category has this id.")
        objects[image].append(LabelledBox(names[category], entry.box("bbox")))
    seen: set[str] = set()
    for key, entry in pictures.items():
        name = entry.image_name("file_name")
        if name in seen:
            raise InputError(f"{entry.where} repeats the file_name {shown(name)} of an earlier image.")
        seen.add(name)
        yield Sample(name, images / name, entry.side("width"), entry.side("height"), tuple(objects[key]))


def _table(data: Entry, path: Path, name: str) -> dict[int | str, Entry]:
    """The entries of a list by their `id`."""
    index: dict[int | str, Entry] = {}
    for entry in _entries(data, path, name):
        key = entry.key("id")
        if index.setdefault(key, entry) is not entry:
            raise InputError(f"{entry.where} repeats the id {shown(key)} of an earlier entry.")
    return index


def _entries(data: Entry, path: Path, name: str) -> list[Entry]:
    values: Any = data.field(name)
    if not isinstance(values, list):
        raise InputError(f"{data.where} has {name} {shown(values)}, but it must be a list.")
    return [Entry(value, f"{path}, {name}[{position}]") for position, value in enumerate(values)]

"""Reader of COCO detection files: one JSON with `images`, `annotations` and `categories`, beside a folder of images."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from wherein.data.entry import Entry, read_json
from wherein.data.mask import read_mask
from wherein.data.sample import LabelledBox, Sample, join
from wherein.errors import InputError


def read_coco(annotations: Path, images: Path) -> Iterator[Sample]:
    """The images of a COCO file in its order, each with all its objects; no image is opened, no mask decoded.

    Crowd annotations are left out. The phrase of an object is the name of its category in lower case.

    Raises:
        InputError: the file cannot be read, or an entry of it is unusable; the message names both.
    """
    content = read_json(annotations)
    if isinstance(content, list):
        raise InputError(f"The annotation file {annotations} is a list, so not COCO format; is it a list of pairs?")
    data = Entry(content, f"The annotation file {annotations}")
    names = {key: entry.text("name").lower() for key, entry in data.table("categories").items()}
    pictures = data.table("images")
    objects: dict[int | str, list[LabelledBox]] = defaultdict(list)
    for entry in data.entries("annotations"):
        if entry.flag("iscrowd"):
            continue
        entry.target("image_id", pictures, "image")
        name = entry.target("category_id", names, "category")
        objects[entry.key("image_id")].append(LabelledBox(name, entry.box("bbox"), read_mask(entry)))
    yield from join(pictures, objects, images)

"""Reader of phrase-box pairs: a JSON list of `{"file_name", "phrase", "bbox": [x, y, width, height]}`.

A pair may have a `segmentation` as COCO writes it.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from wherein.data.entry import Entry, read_json
from wherein.data.mask import read_mask
from wherein.data.sample import LabelledBox, Sample
from wherein.errors import InputError


def read_pairs(annotations: Path, images: Path) -> Iterator[Sample]:
    """The images of a file of pairs in the order they first appear, each with all its pairs; no image is opened.

    Raises:
        InputError: the file cannot be read, or an entry of it is unusable; the message names both.
    """
    values = read_json(annotations)
    if not isinstance(values, list):
        raise InputError(f"The annotation file {annotations} is no list, so not pairs; is it in COCO format?")
    objects: dict[str, list[LabelledBox]] = defaultdict(list)
    for position, value in enumerate(values):
        entry = Entry(value, f"{annotations}, pair[{position}]")
        name = entry.image_name("file_name")
        objects[name].append(LabelledBox(entry.text("phrase"), entry.box("bbox"), read_mask(entry)))
    for name, labelled in objects.items():
        yield Sample(name, images / name, None, None, tuple(labelled))

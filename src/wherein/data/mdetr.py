"""Reader of RefCOCO as MDETR (Kamath et al., ICCV'21) writes it: COCO's JSON, each entry of `images` one expression.

Notable choices:
- several entries have the `file_name` of one image, and their `caption`s are the expressions about it
- the whole caption is the phrase: `tokens_positive` only tells the words of it that name the object
- an entry may have several objects, or none: its expression is then among the sample's `absent`
- objects of one entry that stand for different words make the caption a sentence about several things, as of Flickr30k
  in this shape, and no expression: it is complained of

The data are RefCOCO's, and their licence: all but the train split are for evaluation, never training.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wherein.data.complaint import Complain, refuse
from wherein.data.dataset import Dataset, folder_of, no_split
from wherein.data.entry import Entry, shown
from wherein.data.files import first_image, read_json
from wherein.data.mask import read_mask
from wherein.data.sample import Gathered, Key, LabelledBox, Sample
from wherein.errors import InputError

_NAME = re.compile(r"(?:finetune_)?(g?refcoco[+g]?)_(train|val|test[AB]?)")


def read_mdetr(annotations: Path, images: Path, complain: Complain = refuse) -> Iterator[Sample]:
    """The images of a file in the order they first appear, each with a box for every object of every expression.

    An expression that two people wrote counts twice, and crowds that are referred to stay, as of `read_refcoco`. No
    image is opened, no mask decoded. An expression without a box means nothing in its image; it is left out where a box
    was complained of that belongs to no expression.

    Raises:
        InputError: the file cannot be read or is not in this format; or, as `complain` decides, a record is unusable.
    """
    data = Entry(read_json(annotations), f"The annotation file {annotations}")
    gathered, asked = Gathered(complain), dict[Key, Entry]()
    expressions = _expressions(data, gathered, complain)
    words: dict[Key, Any] = {}
    strays = 0  # boxes that belong to no expression
    for entry in data.entries("annotations", complain):
        file = None
        try:
            key = entry.reference("image_id", expressions, "image with an expression")
            file, phrase, _ = expressions[key]
            if words.setdefault(key, entry.get("tokens_positive")) != entry.get("tokens_positive"):
                raise InputError(
                    f"{entry.where} stands for other words of the caption {shown(phrase)} than an earlier box, "
                    "but a caption must be one expression."
                )
            gathered.objects[file].append(LabelledBox(phrase, entry.box("bbox"), read_mask(entry), entry.where))
        except InputError as error:
            gathered.spoil(file, error)
            strays += file is None
    for key, (file, phrase, entry) in expressions.items():
        if key not in words:
            if strays:  # one of them may be what it means
                continue
            gathered.absent[file].append(phrase)
        asked.setdefault(file, entry)
    del data  # or all annotations would stay in memory for as long as somebody takes images
    yield from gathered.samples(asked, images, lambda entry: entry.image_name("file_name"))


def find_mdetr(path: Path, images: Path | None, split: str | None) -> Dataset | None:
    """A file of expressions, or a folder with one called `annotations.json`."""
    file = path / "annotations.json" if path.is_dir() else path
    if file.suffix.lower() != ".json" or not file.is_file() or "caption" not in first_image(file):
        return None
    told = _NAME.fullmatch(file.stem)
    if told is None or split != told[2]:
        no_split(path, split)
    beside, above = file.parent, file.parent.parent
    usual = [beside / "images", beside / "train2014", above / "train2014", above / "images" / "train2014"]
    folder = folder_of(file, images, usual)
    name = file.resolve().parent.name if file.name == "annotations.json" else file.stem
    return Dataset(
        "refcoco",
        told[1] if told else name,
        (file,),
        lambda complain: read_mdetr(file, folder, complain),
        split=told[2] if told else None,
    )


def _expressions(data: Entry, gathered: Gathered, complain: Complain) -> dict[Key, tuple[str, str, Entry]]:
    """The image, the expression and the entry itself of each entry of `images`, by its `id`."""
    found: dict[Key, tuple[str, str, Entry]] = {}
    for entry in data.entries("images", complain):
        file = None
        try:
            file = entry.image_name("file_name")
            key = entry.key("id")
            if key in found:
                error = InputError(f"{entry.where} repeats the id {shown(key)} of an earlier entry.")
                gathered.spoil(found[key][0], error)
                raise error
            found[key] = file, entry.text("caption"), entry
        except InputError as error:
            gathered.spoil(file, error)
    return found

"""Reader of LVIS v1: COCO's format, but for how images and categories are named.

Notable choices:
- an image is named by its address at MS-COCO, whose last two parts are the file: val holds images of both train2017 and
  val2017, so the folder of images is the one that holds these two
- the phrase is the name without underscores and without what is in parentheses, as PIN's authors ask; two categories
  may then have one phrase
- LVIS does not label every category in every image: that an image lists which (`neg_category_ids`,
  `not_exhaustive_category_ids`) is of no use to who is asked only for what is there, and is not read

Annotations CC BY 4.0, images those of MS-COCO. val is for evaluation, never training.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from wherein.data.coco import read_instances
from wherein.data.complaint import Complain, refuse
from wherein.data.dataset import Dataset, folder_of, no_split, pick
from wherein.data.entry import Entry, shown, stays_inside
from wherein.data.sample import Sample
from wherein.errors import InputError

_FILE = re.compile(r"lvis_v[\d.]+_(\w+)")
_IN_PARENTHESES = re.compile(r"\([^)]*\)")


def read_lvis(annotations: Path, images: Path, complain: Complain = refuse) -> Iterator[Sample]:
    """The images of an LVIS file in its order, each with all its objects; `images` holds train2017 and val2017.

    Raises:
        InputError: as of `read_coco`.
    """
    return read_instances(annotations, images, complain, _file, _category)


def find_lvis(path: Path, images: Path | None, split: str | None) -> Dataset | None:
    """An LVIS file, or the folder of several, itself or in `annotations`."""
    files = {path} if path.is_file() else {*path.glob("lvis_v*.json"), *path.glob("annotations/lvis_v*.json")}
    splits = {found[1]: file for file in sorted(files) if (found := _FILE.fullmatch(file.stem))}
    if not splits:
        return None
    if path.is_file():
        no_split(path, split)
    split, file = pick(f"{path} has", splits, split)
    usual = [root for root in (file.parent, file.parent.parent) if (root / "val2017").is_dir()]
    folder = folder_of(file, images, usual)
    return Dataset("lvis", file.stem, (file,), lambda complain: read_lvis(file, folder, complain), True, split)


def _file(entry: Entry) -> str:
    address = entry.text("coco_url")
    file = "/".join(address.split("/")[-2:])
    if "/" not in file or not stays_inside(file):
        raise InputError(f"{entry.where} has coco_url {shown(address)}, but it must end in a folder and a file.")
    return file


def _category(entry: Entry) -> str:
    """`bow_(weapon)` is a bow."""
    name = " ".join(_IN_PARENTHESES.sub(" ", entry.text("name").replace("_", " ")).split()).lower()
    if not name:
        raise InputError(f"{entry.where} has name {shown(entry.text('name'))}, of which nothing can be asked for.")
    return name

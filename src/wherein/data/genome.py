"""Reader of Visual Genome's region descriptions: a phrase and a box for every region.

Notable choices:
- the file does not tell in which of the two published folders an image is: it is looked for in VG_100K, in VG_100K_2
  and in the folder itself
- nor does it tell how large an image is: boxes are checked when the image is read

Annotations CC BY 4.0, images under the terms of Flickr. The test images of dense captioning are for evaluation, never
training.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from wherein.data.complaint import Complain, refuse
from wherein.data.dataset import Dataset, folder_of, no_split
from wherein.data.entry import Entry, objects
from wherein.data.files import first, read_json
from wherein.data.sample import Gathered, Key, LabelledBox, Sample
from wherein.errors import InputError

REGIONS = "region_descriptions.json"
"""The file as it is published."""
_FOLDERS = ("VG_100K", "VG_100K_2")


def read_genome(regions: Path, images: Path, complain: Complain = refuse) -> Iterator[Sample]:
    """The images of a file of regions in its order, each with all its regions; no image is opened.

    Raises:
        InputError: the file cannot be read or is no list; or, as `complain` decides, a record is unusable.
    """
    values = read_json(regions)
    if not isinstance(values, list):
        raise InputError(f"The annotation file {regions} is no list, so not Visual Genome's regions.")
    pictures, gathered = dict[Key, Entry](), Gathered(complain)
    for entry in objects(values, f"{regions}, image", complain):
        key = None
        try:
            key = entry.key("id")
            picture = Entry({name: entry.get(name) for name in ("id", "width", "height")}, entry.where)
            if pictures.setdefault(key, picture) is not picture:
                raise InputError(f"{entry.where} repeats the id {key!r} of an earlier entry.")
            gathered.objects[key] = [_region(region) for region in entry.entries("regions")]
        except InputError as error:
            gathered.spoil(key, error)
    del values  # or all regions would stay in memory twice for as long as somebody takes images
    yield from gathered.samples(pictures, images, lambda entry: _file(entry, images))


def find_genome(path: Path, images: Path | None, split: str | None) -> Dataset | None:
    """A file of regions, or the folder of `region_descriptions.json`."""
    file = path / REGIONS if path.is_dir() else path
    if not file.is_file() or file.suffix.lower() != ".json" or "regions" not in (first(file) or {}):
        return None
    no_split(path, split)
    usual = [folder for folder in (file.parent, file.parent / "images") if (folder / _FOLDERS[0]).is_dir()]
    folder = folder_of(file, images, [*usual, file.parent / "images"])
    return Dataset("genome", file.stem, (file,), lambda complain: read_genome(file, folder, complain))


def _region(region: Entry) -> LabelledBox:
    sides = [region.number(name) for name in ("x", "y", "width", "height")]
    return LabelledBox(region.text("phrase"), Entry({"bbox": sides}, region.where).box("bbox"), None, region.where)


def _file(entry: Entry, images: Path) -> str:
    """The file of an image as it is relative to the folder."""
    name = Entry({"id": f"{entry.key('id')}.jpg"}, entry.where).image_name("id")
    return next((f"{folder}/{name}" for folder in _FOLDERS if os.path.isfile(images / folder / name)), name)

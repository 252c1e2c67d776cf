"""The formats of data sets that are recognised: adding one is a file with a reader and a finder, and a row here."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from wherein.data.coco import find_coco
from wherein.data.dataset import Dataset
from wherein.data.genome import find_genome
from wherein.data.lvis import find_lvis
from wherein.data.pairs import find_pairs
from wherein.data.reasonseg import find_reasonseg
from wherein.data.refcoco import find_refcoco
from wherein.data.voc import find_voc
from wherein.data.yolo import find_yolo
from wherein.errors import InputError

AUTO = "auto"
"""Stands for whichever format a path is laid out in."""


class Format(NamedTuple):
    """How a format is recognised.

    find: given a path that exists, the folder of images or None where it is not told, and the split or None, the data
        set that is there; None where the path is laid out in another way. InputError where it is, but something lacks.
    layout: what is looked for, for people.
    """

    find: Callable[[Path, Path | None, str | None], Dataset | None]
    layout: str


FORMATS = {
    "coco": Format(find_coco, "annotations/instances_<split>.json and <split>/, or annotations.json and images/"),
    "lvis": Format(find_lvis, "lvis_v1_<split>.json, train2017/ and val2017/"),
    "voc": Format(find_voc, "Annotations/*.xml, JPEGImages/ and ImageSets/Main/<split>.txt"),
    "refcoco": Format(find_refcoco, "refs(unc).p or .json and instances.json, or a COCO file with a caption an image"),
    "reasonseg": Format(find_reasonseg, "<split>/*.jpg with a .json each"),
    "genome": Format(find_genome, "region_descriptions.json, VG_100K/ and VG_100K_2/"),
    "yolo": Format(find_yolo, "labels/*.txt, images/ and data.yaml or classes.txt"),
    "pairs": Format(find_pairs, "annotations.json, .jsonl or .csv of phrases with boxes, and images/"),
}
"""The formats by name, in the order in which they are tried; pairs take any list."""


def open_dataset(path: Path, images: Path | None = None, format: str = AUTO, split: str | None = None) -> Dataset:
    """The data set in a folder, or of an annotation file; nothing of it is read that does not tell its format.

    Args:
        path: the folder or the annotation file.
        images: the folder of the images, where it is not in its usual place.
        format: one of `FORMATS`, or "auto" for the first one that fits.
        split: the part of it, where it has several.

    Raises:
        InputError: there is nothing at the path, no format fits, or the images or the split are not to be found.
    """
    if format not in (AUTO, *FORMATS):
        raise InputError(f"There is no format {format!r}: choose {AUTO}, {', '.join(FORMATS)}.")
    if not os.path.exists(path):
        raise InputError(f"There is no file or folder {path}: give an annotation file, or the folder of a data set.")
    tried = FORMATS if format == AUTO else {format: FORMATS[format]}
    for one in tried.values():
        if found := one.find(path, images, split):
            return found
    looked = "; ".join(f"{name} ({one.layout})" for name, one in tried.items())
    raise InputError(f"{path} is not recognised as a data set; this was looked for: {looked}.")

"""Reader of phrase-box pairs: one record a pair, written as JSON, JSON lines or CSV.

A record is `{"file_name", "phrase", "bbox": [x, y, width, height]}` in a JSON list or on a line of its own; it may have
a `segmentation` as COCO writes it. A CSV file has the header `file_name,phrase,x0,y0,x1,y1`: the corners of the box.

RefCOCO is passed around as such records, too, with `bbox` as `[x0, y0, x1, y1]`: Shikra calls the other two `img_path`
and `expression`, Qwen-VL `image` and `sent`. The names decide which it is, and a file keeps to one. The image is often
told by its path on another machine: where the folder does not have that, its last part alone is looked for.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from wherein.data.complaint import Complain, refuse
from wherein.data.dataset import Dataset, folder_of, no_split
from wherein.data.entry import Entry, objects, parse, stays_inside
from wherein.data.files import first, read_json, read_lines, reading
from wherein.data.mask import read_mask
from wherein.data.sample import Gathered, Key, LabelledBox, Sample
from wherein.errors import InputError

HEADER = ("file_name", "phrase", "x0", "y0", "x1", "y1")
"""Columns that a CSV file must have, in any order."""
_LINES, _TABLE = (".jsonl", ".ndjson"), ".csv"
_SIDES = ("width", "height")
_OURS = "file_name"
_PHRASES = {_OURS: "phrase", "img_path": "expression", "image": "sent"}  # by the name that the image goes by


def read_pairs(annotations: Path, images: Path, complain: Complain = refuse) -> Iterator[Sample]:
    """The images of a file of pairs in the order they first appear, each with all its pairs; no image is opened.

    Raises:
        InputError: the file cannot be read or holds no pairs; or, as `complain` decides, a record is unusable.
    """
    gathered, pictures, kept = Gathered(complain), dict[Key, Entry](), ""
    for entry in _entries(annotations, complain):
        name = None
        try:
            called = _called(entry)
            name = _image(entry, called, images)
            phrase = _phrase(entry, called)
            kept = kept or called
            if called != kept:
                raise InputError(f"{entry.where} has {called!r}, but an earlier pair {kept!r}: keep to one in a file.")
            pictures.setdefault(name, _picture(name, entry))
            box = _box(entry, called, annotations.suffix.lower() == _TABLE)
            gathered.objects[name].append(LabelledBox(phrase, box, read_mask(entry), entry.where))
        except InputError as error:
            gathered.spoil(name, error)
    yield from gathered.samples(pictures, images, lambda entry: entry.image_name("file_name"))


def find_pairs(path: Path, images: Path | None, split: str | None) -> Dataset | None:
    """A file of pairs, or a folder with one called `annotations`."""
    suffixes = (".json", *_LINES, _TABLE)
    if path.is_dir():
        path = next((file for each in suffixes if (file := path / f"annotations{each}").is_file()), path)
    if path.suffix.lower() not in suffixes or (path.suffix.lower() == ".json" and first(path) is None):
        return None
    no_split(path, split)
    folder = folder_of(path, images, [path.parent / "images"])
    return Dataset("pairs", path.stem, (path,), lambda complain: read_pairs(path, folder, complain))


def _called(entry: Entry) -> str:
    """The field that tells the image, which says by whose names the record goes."""
    called = next((name for name in _PHRASES if entry.get(name) is not None), None)
    if called is None:
        raise _misnamed(entry)
    return called


def _phrase(entry: Entry, called: str) -> str:
    """The phrase of a record of which the names are those of one convention."""
    whole = [name for name, phrase in _PHRASES.items() if None not in (entry.get(name), entry.get(phrase))]
    if whole != [called]:
        raise _misnamed(entry)
    return entry.text(_PHRASES[called])


def _misnamed(entry: Entry) -> InputError:
    there = [name for name in (*_PHRASES, *_PHRASES.values()) if entry.get(name) is not None]
    return InputError(
        f"{entry.where} has {' and '.join(map(repr, there)) or 'no image and no phrase'}, but must have one pair of "
        "'file_name' and 'phrase' (bbox [x, y, width, height]), 'img_path' and 'expression', or 'image' and 'sent' "
        "(bbox [x0, y0, x1, y1])."
    )


def _box(entry: Entry, called: str, table: bool) -> NDArray[np.float64]:
    """The box of a record, float64[4] xyxy in original pixels."""
    if table:
        return entry.corners(*HEADER[2:])
    return entry.box("bbox") if called == _OURS else entry.spanned("bbox")


def _image(entry: Entry, called: str, images: Path) -> str:
    """The path of a record's image inside the folder."""
    told = entry.text(called)
    last = PurePosixPath(told).name
    inside = stays_inside(told) and os.path.isfile(images / told)
    if called != _OURS and not inside and stays_inside(last) and os.path.isfile(images / last):
        return last
    return entry.image_name(called)


def _picture(name: str, entry: Entry) -> Entry:
    """What a record says of its image, under our names."""
    return Entry({"file_name": name, **{side: entry.get(side) for side in _SIDES}}, entry.where)


def _entries(path: Path, complain: Complain) -> Iterator[Entry]:
    if path.suffix.lower() == _TABLE:
        return _rows(path)
    if path.suffix.lower() in _LINES:
        return read_lines(path, complain)
    values = read_json(path)
    if not isinstance(values, list):
        raise InputError(f"The annotation file {path} is no list, so not pairs; is it in COCO format?")
    return objects(values, f"{path}, pair", complain)


def _rows(path: Path) -> Iterator[Entry]:
    """The rows of a CSV file, the numbers in them parsed; of other columns only the image's sides are taken."""
    try:
        with reading(path), path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [column for column in HEADER if column not in (rows.fieldnames or ())]
            if missing:
                raise InputError(f"The header of {path} lacks {', '.join(missing)}: it must name {','.join(HEADER)}.")
            for row in rows:
                words = {name: row[name] or "" for name in HEADER[:2]}
                numbers = {name: parse(row[name] or "") for name in HEADER[2:]}
                sides = {name: parse(row[name]) for name in _SIDES if row.get(name)}
                yield Entry({**words, **numbers, **sides}, f"{path}, line {rows.line_num}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The annotation file {path} is not CSV in UTF-8: {error}.") from error

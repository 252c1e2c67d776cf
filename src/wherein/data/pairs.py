"""Reader of phrase-box pairs: one record a pair, written as JSON, JSON lines or CSV.

A record is `{"file_name", "phrase", "bbox": [x, y, width, height]}` in a JSON list or on a line of its own; it may have
a `segmentation` as COCO writes it. A CSV file has the header `file_name,phrase,x0,y0,x1,y1`: the corners of the box.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from wherein.data.complaint import Complain, refuse
from wherein.data.dataset import Dataset, folder_of, no_split
from wherein.data.entry import Entry, objects, parse
from wherein.data.files import first, read_json, read_lines, reading
from wherein.data.mask import read_mask
from wherein.data.sample import Gathered, Key, LabelledBox, Sample
from wherein.errors import InputError

HEADER = ("file_name", "phrase", "x0", "y0", "x1", "y1")
"""Columns that a CSV file must have, in any order."""
_LINES, _TABLE = (".jsonl", ".ndjson"), ".csv"


def read_pairs(annotations: Path, images: Path, complain: Complain = refuse) -> Iterator[Sample]:
    """The images of a file of pairs in the order they first appear, each with all its pairs; no image is opened.

    Raises:
        InputError: the file cannot be read or holds no pairs; or, as `complain` decides, a record is unusable.
    """
    gathered, pictures = Gathered(complain), dict[Key, Entry]()
    for entry in _entries(annotations, complain):
        name = None
        try:
            name = entry.image_name("file_name")
            pictures.setdefault(name, entry)
            box = entry.corners(*HEADER[2:]) if annotations.suffix == _TABLE else entry.box("bbox")
            gathered.objects[name].append(LabelledBox(entry.text("phrase"), box, read_mask(entry), entry.where))
        except InputError as error:
            gathered.spoil(name, error)
    yield from gathered.samples(pictures, images, lambda entry: entry.image_name("file_name"))


def find_pairs(path: Path, images: Path | None, split: str | None) -> Dataset | None:
    """A file of pairs, or a folder with one called `annotations`."""
    suffixes = (".json", *_LINES, _TABLE)
    if path.is_dir():
        path = next((file for each in suffixes if (file := path / f"annotations{each}").is_file()), path)
    if path.suffix not in suffixes or (path.suffix == ".json" and first(path) is None):
        return None
    no_split(path, split)
    folder = folder_of(path, images, [path.parent / "images"])
    return Dataset("pairs", path.stem, (path,), lambda complain: read_pairs(path, folder, complain))


def _entries(path: Path, complain: Complain) -> Iterator[Entry]:
    if path.suffix == _TABLE:
        return _rows(path)
    if path.suffix in _LINES:
        return read_lines(path, complain)
    values = read_json(path)
    if not isinstance(values, list):
        raise InputError(f"The annotation file {path} is no list, so not pairs; is it in COCO format?")
    return objects(values, f"{path}, pair", complain)


def _rows(path: Path) -> Iterator[Entry]:
    """The rows of a CSV file, the numbers in them parsed."""
    try:
        with reading(path), path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [column for column in HEADER if column not in (rows.fieldnames or ())]
            if missing:
                raise InputError(f"The header of {path} lacks {', '.join(missing)}: it must name {','.join(HEADER)}.")
            for row in rows:
                numbers = {name: parse(row[name] or "") for name in HEADER[2:]}
                yield Entry({**row, **numbers}, f"{path}, line {rows.line_num}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The annotation file {path} is not CSV in UTF-8: {error}.") from error

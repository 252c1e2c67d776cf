"""Reader of YOLO folders: a text file an image, a line an object, and the names of the classes.

Notable choices:
- a line is `class x y width height`, the centre and size of a box, or `class x0 y0 x1 y1 x2 y2 ...`, an outline, all as
  shares of the image's width and height: the image is read to know how many pixels that is
- an image without a text file holds no object, as the format has it; a text file without an image is complained of
- of `data.yaml` only the names are read: the folders it tells are often those of another machine. Aliases and deep
  lists are refused: with the first, a few lines can stand for more than the memory holds; on the second, the parser
  takes minutes
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wherein import images as pictures
from wherein.data.complaint import Complain, refuse
from wherein.data.dataset import Dataset, folder_of, no_split, pick
from wherein.data.entry import is_number, parse, shown
from wherein.data.files import reading
from wherein.data.mask import Mask
from wherein.data.sample import LabelledBox, Sample, each
from wherein.errors import InputError

_CLASSES = "classes.txt"
_DEEPEST = 8  # collections within each other in a data.yaml


def read_yolo(labels: Path, images: Path, names: Mapping[int, Any], complain: Complain = refuse) -> Iterator[Sample]:
    """The images of a folder in the order of their names, each with the objects that its text file in `labels` tells.

    `names` are those of the classes by number, unchecked; the phrase of an object is the name in lower case.

    Raises:
        InputError: the folder holds no image; or, as `complain` decides, an image or its text file is unusable.
    """
    found = pictures.list_images(images)
    lost = {file.stem for file in _texts(labels)} - {path.stem for path in found}
    for stem in sorted(lost):
        complain(InputError(f"{labels / stem}.txt is of the image {shown(stem)}, which is not in {images}."))
    yield from each(found, lambda path: _sample(path, labels / f"{path.stem}.txt", names), complain)


def find_yolo(path: Path, images: Path | None, split: str | None) -> Dataset | None:
    """A folder with `images/` and `labels/`, or both for each split, and the names in `data.yaml` or `classes.txt`."""
    splits = {folder.name: (folder, path / "images" / folder.name) for folder in path.glob("labels/*/")}
    splits |= {folder.parent.name: (folder, folder.parent / "images") for folder in path.glob("*/labels/")}
    whole = path / "labels", path / "images"
    if not any(_texts(labels) for labels, _ in (whole, *splits.values())):
        return None
    if splits:
        split, whole = pick(f"{path} has", splits, split)
    else:
        no_split(path, split)
    (labels, usual), (source, names) = whole, _classes(path)
    folder = folder_of(path, images, [usual])
    files = source, *_texts(labels)
    return Dataset("yolo", path.name, files, lambda complain: read_yolo(labels, folder, names, complain), True, split)


def _texts(labels: Path) -> list[Path]:
    return sorted(file for file in labels.glob("*.txt") if file.name != _CLASSES)


def _classes(root: Path) -> tuple[Path, dict[int, Any]]:
    """The file that names the classes, and the names by number."""
    usual = [root / "data.yaml", *sorted(root.glob("*.yaml")), root / _CLASSES, root / "labels" / _CLASSES]
    file = next((file for file in usual if file.is_file()), None)
    if file is None:
        raise InputError(f"{root} has labels, but neither a data.yaml nor a {_CLASSES} that names its classes.")
    try:
        with reading(file):
            text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} does not name classes: {error}.") from error
    names = text.splitlines() if file.name == _CLASSES else _names(file, text)
    return file, dict(enumerate(names)) if isinstance(names, list) else names


def _names(file: Path, text: str) -> list[Any] | dict[int, Any]:
    """What YAML says under `names`."""
    import yaml

    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
                raise InputError(f"{file} has YAML aliases or deep lists, which names of classes do not need.")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{file} is not YAML: {error}.") from error
    names = content.get("names") if isinstance(content, dict) else None
    if not isinstance(names, list | dict):
        raise InputError(f"{file} has no list of 'names' of the classes.")
    return names


def _sample(path: Path, label: Path, names: Mapping[int, Any]) -> Sample:
    height, width = pictures.load(path).shape[:2]
    if not label.is_file():
        return Sample(path.name, path, width, height, (), str(path))
    try:
        with reading(label):
            lines = label.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{label} is no list of boxes: {error}.") from error
    objects = tuple(
        _object(line, f"{label}, line {number}", names, width, height)
        for number, line in enumerate(lines, 1)
        if line.strip()
    )
    return Sample(path.name, path, width, height, objects, str(label))


def _object(line: str, where: str, names: Mapping[int, Any], width: int, height: int) -> LabelledBox:
    values = [parse(word) for word in line.split()]
    numbers = [value for value in values if isinstance(value, float) and is_number(value)]
    outline = len(numbers) >= 7 and len(numbers) % 2 == 1
    if len(numbers) != len(values) or not (len(numbers) == 5 or outline) or not numbers[0].is_integer():
        raise InputError(f"{where} is {shown(line)}, but must be a class and a box x y width height, or an outline.")
    name = names.get(int(numbers[0]))
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{where} is of class {numbers[0]:g}, which has no name.")
    points = np.array(numbers[1:]).reshape(-1, 2)
    if not outline:
        if min(points[1]) < 0:
            raise InputError(f"{where} is {shown(line)}, but the width and height of a box must not be below 0.")
        points = points[0] + points[1] * [[-0.5], [0.5]]
    points = points * [width, height]
    box = np.concatenate([points.min(0), points.max(0)])
    mask = Mask([points.ravel().tolist()], where) if outline else None
    return LabelledBox(name.strip().lower(), box, mask, where)

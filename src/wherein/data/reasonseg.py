"""Reader of ReasonSeg: beside each image a JSON file with a question and the outlines of what answers it.

Notable choices:
- a file lists rewordings of one question; the first is asked, as its authors do, so that figures count images
- outlines lie over each other, the smaller on top; what is then to be ignored counts neither for nor against an answer
- the box is the one around all targets
- boxes and areas are of the outlines themselves, where the authors' program counts drawn pixels

Images of Open Images (CC BY 2.0) and ScanNet (by agreement): for research, not for commercial use; val and test are for
evaluation, never training.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wherein.data.complaint import Complain, refuse
from wherein.data.dataset import Dataset, folder_of, no_split, pick
from wherein.data.entry import Entry, is_number, shown
from wherein.data.files import read_json
from wherein.data.mask import Mask
from wherein.data.sample import LabelledBox, Sample, each
from wherein.errors import InputError

_SUFFIXES = (".jpg", ".png", ".jpeg")


@dataclass(frozen=True, eq=False)
class Layers(Mask):
    """A mask painted in layers: the polygons of `segmentation` from below; those that are not `targets` are ignored."""

    targets: tuple[bool, ...] = ()

    def decode(self, height: int, width: int) -> NDArray[np.bool_]:
        """The pixels where the uppermost polygon is a target, bool[H, W], for the image of this size in pixels."""
        return np.equal(self._painted(height, width), 1)

    def ignored(self, height: int, width: int) -> NDArray[np.bool_]:
        """The pixels where the uppermost polygon is to be ignored, bool[H, W]."""
        return np.equal(self._painted(height, width), 2)

    def _painted(self, height: int, width: int) -> NDArray[np.uint8]:
        self.check(height, width)
        painted = np.zeros((height, width), dtype=np.uint8)
        for polygon, target in zip(self.segmentation, self.targets, strict=True):
            painted[Mask([polygon], self.where).decode(height, width)] = 1 if target else 2
        return painted


def read_reasonseg(annotations: Sequence[Path], images: Path, complain: Complain = refuse) -> Iterator[Sample]:
    """The image beside each JSON file, with its question; no image is opened.

    Raises:
        InputError: as `complain` decides, a file is unusable.
    """
    return each(annotations, lambda path: _sample(path, images), complain)


def find_reasonseg(path: Path, images: Path | None, split: str | None) -> Dataset | None:
    """A folder of images with a JSON file each, or one with such a folder for each split."""
    folder, splits = path, {child.name: child for child in path.glob("*/") if _is_one(child)}
    if splits:
        split, folder = pick(f"{path} has", splits, split)
    elif _is_one(path):
        no_split(path, split)
    else:
        return None
    files, pictures = tuple(sorted(folder.glob("*.json"))), folder_of(folder, images, [folder])
    return Dataset(
        "reasonseg", folder.name, files, lambda complain: read_reasonseg(files, pictures, complain), split=split
    )


def _is_one(folder: Path) -> bool:
    """Whether the first JSON file with an image beside it holds a question."""
    file = min((each for each in folder.glob("*.json") if _picture(each, folder).is_file()), default=None)
    if file is None:
        return False
    content = _content(file)
    return isinstance(content, dict) and {"text", "shapes"} <= content.keys()


def _content(path: Path) -> Any:
    """Some of the files as they were published are not in UTF-8."""
    try:
        return read_json(path)
    except InputError:
        return read_json(path, "cp1252")


def _picture(path: Path, images: Path) -> Path:
    files = [images / f"{path.stem}{suffix}" for suffix in _SUFFIXES]
    return next((file for file in files if file.is_file()), files[0])


def _sample(path: Path, images: Path) -> Sample:
    entry = Entry(_content(path), str(path))
    texts = entry.values("text")
    phrase = Entry({"text": texts[0] if texts else None}, str(path)).text("text")
    shapes = [shape for shape in entry.entries("shapes") if shape.text("label").lower() != "flag"]
    shapes.sort(key=_area, reverse=True)
    targets = tuple("ignore" not in shape.text("label").lower() for shape in shapes)
    meant = [_points(shape) for shape, target in zip(shapes, targets, strict=True) if target]
    if not meant:
        raise InputError(f"{path} has no target among its shapes.")
    box = np.concatenate([np.concatenate(meant).min(0), np.concatenate(meant).max(0)])
    mask = Layers([_points(shape).ravel().tolist() for shape in shapes], str(path), targets)
    picture = _picture(path, images)
    return Sample(picture.name, picture, None, None, (LabelledBox(phrase, box, mask, str(path)),), str(path))


def _points(shape: Entry) -> NDArray[np.float64]:
    """The corners of an outline, float64[N, 2] in pixels."""
    points = shape.values("points")
    if not points or not all(isinstance(one, list) and len(one) == 2 and all(map(is_number, one)) for one in points):
        raise InputError(f"{shape.where} has points {shown(points)}, but they must be [[x, y], ...] in pixels.")
    return np.array(points, dtype=np.float64)


def _area(shape: Entry) -> float:
    x, y = _points(shape).T
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2

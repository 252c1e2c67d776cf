"""Reader of PASCAL VOC (2007, 2012, and what labelling tools write alike): one XML file an image.

Notable choices:
- VOC counts pixels from 1 and means both corners to be inside: xmin - 1 .. xmax in continuous pixels, so a box over the
  whole image is [0, 0, width, height]
- objects flagged `difficult` stay: PIN's protocol counts the annotations of the whole image, and asks for each
- parts (heads, hands) are no objects of their own
- expat parses, and a document type is refused: only within one can entities be declared, which multiply (a "billion
  laughs") or name other files. VOC has none

VOC: images under the terms of Flickr; test sets are for evaluation, never training.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from wherein.data.complaint import Complain, refuse
from wherein.data.dataset import Dataset, folder_of, no_split, pick
from wherein.data.entry import Entry, parse, shown, stays_inside
from wherein.data.files import reading
from wherein.data.sample import LabelledBox, Sample, each
from wherein.errors import InputError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_MARKED = re.compile(r".+\s(?:-?1|0)")  # an image in the list of a class


def read_voc(annotations: Sequence[Path], images: Path, complain: Complain = refuse) -> Iterator[Sample]:
    """The image of each XML file, with all its objects; no image is opened.

    Raises:
        InputError: as `complain` decides, a file or an object in it is unusable.
    """
    return each(annotations, lambda path: _sample(path, images), complain)


def find_voc(path: Path, images: Path | None, split: str | None) -> Dataset | None:
    """A VOC folder (`Annotations/`, `JPEGImages/`, `ImageSets/Main/<split>.txt`), or the one that holds it."""
    inside = sorted({*path.glob("VOC20*"), *path.glob("VOCdevkit/VOC20*")})
    roots = [root for root in (path, *inside) if next(root.glob("Annotations/*.xml"), None)]
    if not roots:
        return None
    if len(roots) > 1:
        raise InputError(f"{path} holds {', '.join(root.name for root in roots)}: give the folder of one of them.")
    (root,) = roots
    annotated = {file.stem for file in root.glob("Annotations/*.xml")}
    lists = {file.stem: file for file in root.glob("ImageSets/Main/*.txt") if not _of_a_class(file, annotated)}
    if lists:
        split, chosen = pick(f"{root} has", lists, split)
        files = [root / "Annotations" / f"{name}.xml" for name in _names(chosen)]
    else:
        no_split(root, split)
        chosen, files = root, sorted(root.glob("Annotations/*.xml"))
    folder = folder_of(root, images, [root / "JPEGImages", root / "images"])
    name = root.name if split is None else f"{root.name} {split}"
    return Dataset("voc", name, (chosen, *files), lambda complain: read_voc(files, folder, complain), True, split)


def _of_a_class(path: Path, annotated: set[str]) -> bool:
    """Whether a list tells of each image if a class is in it (1, -1, or 0 for difficult), as `cat_test.txt` does.

    Not where a whole line is the name of an image that is `annotated`, such as `photo 1`.
    """
    lines = _lines(path, errors="replace")
    return bool(lines) and all(map(_MARKED.fullmatch, lines)) and annotated.isdisjoint(lines)


def _lines(path: Path, errors: str = "strict") -> list[str]:
    """The lines of a list that are not blank, without the white space around them."""
    with reading(path):
        text = path.read_text(encoding="utf-8-sig", errors=errors)
    return [line for line in map(str.strip, text.splitlines()) if line]


def _names(path: Path) -> list[str]:
    """The images that a list names, one a line."""
    try:
        names = _lines(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no list of images: {error}.") from error
    for name in names:
        if not stays_inside(name):
            raise InputError(f"{path} names the image {shown(name)}, but it must be the name of one in this data set.")
    if len(set(names)) < len(names):
        raise InputError(f"{path} names an image twice.")
    return names


def _sample(path: Path, images: Path) -> Sample:
    root = _tree(path)
    whole = {name: root.findtext(f"size/{name}", "").strip() for name in ("width", "height")}
    sides = {name: int(text) if text.isascii() and text.isdigit() else text or None for name, text in whole.items()}
    entry = Entry({"filename": root.findtext("filename"), **sides}, str(path))
    name = entry.image_name("filename")
    if Path(name).stem != path.stem:
        raise InputError(f"{path} has filename {shown(name)}, but it must be that of the image {path.stem}.")
    objects = tuple(_object(part, f"{path}, object[{i}]") for i, part in enumerate(root.findall("object")))
    return Sample(name, images / name, entry.side("width"), entry.side("height"), objects, str(path))


def _object(part: Element, where: str) -> LabelledBox:
    numbers = {child.tag: parse(child.text or "") for child in part.iterfind("bndbox/*")}
    entry = Entry({"name": part.findtext("name"), **numbers}, where)
    x0, y0, x1, y1 = _CORNERS
    return LabelledBox(entry.text("name").lower(), entry.corners(x0, y0, x1, y1) - [1, 1, 0, 0], None, where)


def _tree(path: Path) -> Element:
    """The elements of an XML file.

    Raises:
        InputError: it cannot be read, is no XML, or has a document type.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse_doctype(*_: object) -> None:
        """Where entities would be declared."""
        raise InputError(f"The annotation file {path} declares a document type, which VOC does not have: remove it.")

    parser.StartDoctypeDeclHandler = refuse_doctype
    try:
        with reading(path):
            parser.Parse(path.read_bytes(), True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # no XML, or in an encoding that is not known
        raise InputError(f"The annotation file {path} is not XML: {error}.") from error
    return builder.close()

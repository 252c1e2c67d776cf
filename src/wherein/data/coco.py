"""Reader of COCO detection files: one JSON with `images`, `annotations` and `categories`, beside a folder of images.

MS-COCO itself: annotations CC BY 4.0, each image under a licence of its own. val2017 is for evaluation, never training.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from wherein.data.complaint import Complain, refuse
from wherein.data.dataset import Dataset, folder_of, no_split, pick
from wherein.data.entry import Entry, shown
from wherein.data.files import first, first_image, read_json
from wherein.data.mask import read_mask
from wherein.data.sample import Gathered, Key, LabelledBox, Sample
from wherein.errors import InputError

_ROBOFLOW = "_annotations.coco.json"  # lies among its images


def read_coco(annotations: Path, images: Path, complain: Complain = refuse) -> Iterator[Sample]:
    """The images of a COCO file in its order, each with all its objects; no image is opened, no mask decoded.

    Crowd annotations are left out. The phrase of an object is the name of its category in lower case.

    Raises:
        InputError: the file cannot be read or is not in COCO format; or, as `complain` decides, a record is unusable.
    """
    return read_instances(annotations, images, complain, lambda entry: entry.image_name("file_name"), _category)


def read_instances(
    annotations: Path, images: Path, complain: Complain, file: Callable[[Entry], str], name: Callable[[Entry], str]
) -> Iterator[Sample]:
    """As `read_coco`; `file` tells the path of an image entry inside the folder, `name` the phrase of a category."""
    content = read_json(annotations)
    if isinstance(content, list):
        raise InputError(f"The annotation file {annotations} is a list, so not COCO format; is it a list of pairs?")
    data = Entry(content, f"The annotation file {annotations}")
    pictures, gathered = data.table("images", complain), Gathered(complain)
    names = _names(data.table("categories", complain), name, complain)
    seen: set[Key] = set()
    for entry in data.entries("annotations", complain):
        image = None
        try:
            image = entry.reference("image_id", pictures, "image")
            _check_id(entry, seen)
            if not entry.flag("iscrowd"):
                phrase = entry.target("category_id", names, "named category")
                gathered.objects[image].append(LabelledBox(phrase, entry.box("bbox"), read_mask(entry), entry.where))
        except InputError as error:
            gathered.spoil(image, error)
    del content, data  # or all annotations would stay in memory for as long as somebody takes images
    yield from gathered.samples(pictures, images, file)


def find_coco(path: Path, images: Path | None, split: str | None) -> Dataset | None:
    """A COCO file, a folder with `annotations.json`, or a root with `annotations/instances_<split>.json`."""
    file, splits = path, dict[str, Path]()
    if path.is_dir():
        single = [path / name for name in ("annotations.json", _ROBOFLOW) if (path / name).is_file()]
        splits = {each.stem.removeprefix("instances_"): each for each in path.glob("annotations/instances_*.json")}
        splits |= {each.parent.name: each for each in path.glob(f"*/{_ROBOFLOW}")}
        if single and (split is None or not splits):
            file, splits = single[0], {}
        elif splits:
            split, file = pick(f"{path} has", splits, split)
    if file.suffix.lower() != ".json" or file.stem.startswith("lvis_") or first(file) is not None:
        return None
    if "caption" in first_image(file):  # each image is an expression then: of RefCOCO
        return None
    if not splits:
        no_split(path, split)
    title, beside = file.stem.removeprefix("instances_"), file.parent
    usual = [beside / "images", beside.parent / title, beside.parent / "images" / title, beside.parent / "images"]
    folder = folder_of(file, images, [beside] if file.name == _ROBOFLOW else usual)
    name = file.resolve().parent.name if file.name in ("annotations.json", _ROBOFLOW) else title
    return Dataset("coco", name, (file,), lambda complain: read_coco(file, folder, complain), True, split)


def _names(categories: Mapping[Key, Entry], name: Callable[[Entry], str], complain: Complain) -> dict[Key, str]:
    names = {}
    for key, entry in categories.items():
        try:
            names[key] = name(entry)
        except InputError as error:
            complain(error)
    return names


def _category(entry: Entry) -> str:
    return entry.text("name").lower()


def _check_id(entry: Entry, seen: set[Key]) -> None:
    """An annotation without an identifier is let through: nothing refers to it."""
    if entry.get("id") is None:
        return
    key = entry.key("id")
    if key in seen:
        raise InputError(f"{entry.where} repeats the id {shown(key)} of an earlier entry.")
    seen.add(key)

"""Reader of RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO: a list of refs, and beside it the COCO file they point into.

Notable choices:
- the refs as they are published, a pickle, are read as plain values only (`pickled`); the same as JSON is read, too
- the image's name is that of the instances; the `file_name` of a ref names no file
- a ref of gRefCOCO has a list of objects: an expression that means several is a box for each of them, one that means
  none is among the sample's `absent`

The expressions are published without a licence of their own (gRefCOCO: CC BY-NC-SA 4.0, not for commercial use), the
images are MS-COCO's train2014: all but the train split are for evaluation, never training.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wherein.data.complaint import Complain, refuse
from wherein.data.dataset import Dataset, folder_of, pick
from wherein.data.entry import Entry, objects, shown
from wherein.data.files import first, read_json
from wherein.data.mask import read_mask
from wherein.data.mdetr import find_mdetr
from wherein.data.pickled import read_pickle
from wherein.data.sample import Gathered, Key, LabelledBox, Sample
from wherein.errors import InputError

INSTANCES = "instances.json"
"""Name of the COCO-format file beside the refs."""
_PICKLES = (".p", ".pkl", ".pickle")
_NOTHING = -1  # the object of an expression that means none


def read_refcoco(
    refs: Path, images: Path, split: str | None = None, instances: Path | None = None, complain: Complain = refuse
) -> Iterator[Sample]:
    """The images of a split in the order its refs name them, each with a box for every object of every expression.

    An expression that two people wrote counts twice, as in the published figures, and crowds that are referred to stay.
    No image is opened, no mask decoded. `split` may be left out where all refs are of one; `instances` is by default
    `instances.json` in the folder of the refs.

    Raises:
        InputError: a file cannot be read, or there is no such split; or, as `complain` decides, a record is unusable.
    """
    chosen, gathered = _of_split(refs, split, complain), Gathered(complain)
    path = instances or refs.with_name(INSTANCES)
    data = Entry(read_json(path, keep=_slimmer(chosen)), f"The annotation file {path}")
    pictures, annotations = data.table("images", complain), data.table("annotations", complain)
    asked: dict[Key, Entry] = {}
    for ref in chosen:
        image = None
        try:
            image = ref.reference("image_id", pictures, "image")
            ref.text("split")
            found = [(one.box("bbox"), read_mask(one), one.where) for one in _targets(ref, annotations)]
            for phrase in map(_expression, ref.entries("sentences")):
                asked[image] = pictures[image]
                gathered.objects[image] += [LabelledBox(phrase, *each) for each in found]
                if not found:
                    gathered.absent[image].append(phrase)
        except InputError as error:
            gathered.spoil(image, error)
    del chosen, data, annotations  # or they would stay in memory for as long as somebody takes images
    yield from gathered.samples(asked, images, lambda entry: entry.image_name("file_name"))


def find_refcoco(path: Path, images: Path | None, split: str | None) -> Dataset | None:
    """A file of refs beside `instances.json`, or the folder of the two; or a file that `find_mdetr` finds."""
    if path.is_dir() and (path / INSTANCES).is_file():
        refs = {file.stem: file for kind in ("*refs*.p", "*refs*.json") for file in sorted(path.glob(kind))}
        if len(refs) > 1:
            raise InputError(f"{path} holds {', '.join(file.name for file in refs.values())}: give one of these files.")
        path = next(iter(refs.values()), path)
    if found := find_mdetr(path, images, split):
        return found
    if path.suffix.lower() not in _PICKLES and not (path.suffix.lower() == ".json" and "ann_id" in (first(path) or {})):
        return None
    above = path.parent.parent  # the folder of all of them, beside which their authors' program keeps the images
    usual = [path.parent / "images", path.parent / "train2014", above / "images" / "mscoco" / "images" / "train2014"]
    folder = folder_of(path, images, [*usual, above / "images" / "train2014", above / "train2014"])
    files = path, path.with_name(INSTANCES)
    return Dataset(
        "refcoco", path.stem, files, lambda complain: read_refcoco(path, folder, split, complain=complain), split=split
    )


def _of_split(path: Path, split: str | None, complain: Complain) -> list[Entry]:
    """The refs in a file that are of a split, and those that do not say of which they are."""
    values = read_pickle(path) if path.suffix.lower() in _PICKLES else read_json(path)
    if not isinstance(values, list):
        raise InputError(f"The annotation file {path} is no list, so not RefCOCO's refs; is it {INSTANCES}?")
    refs = list(objects(values, f"{path}, ref", complain))
    splits = {str(ref.get("split")): None for ref in refs if _says_split(ref)}
    if splits and (split is not None or len(splits) > 1):
        pick(f"The refs in {path} have", splits, split)
    return [ref for ref in refs if not _says_split(ref) or split in (None, ref.get("split"))]


def _slimmer(refs: Sequence[Entry]) -> Callable[[dict[str, Any]], Any]:
    """Drops the outlines of the objects that no ref means as they are read: of a split, those are nearly all."""
    values = [ref.get("ann_id") for ref in refs]
    keys = [key for value in values for key in (value if isinstance(value, list) else [value])]
    meant = {key for key in keys if isinstance(key, Key)}

    def slim(value: dict[str, Any]) -> dict[str, Any]:
        """An object of the file, without its outline where nobody asks for it."""
        key = value.get("id")
        if "segmentation" in value and not (isinstance(key, Key) and key in meant):
            del value["segmentation"]
        return value

    return slim


def _says_split(ref: Entry) -> bool:
    return isinstance(ref.get("split"), str)


def _targets(ref: Entry, annotations: Mapping[Key, Entry]) -> list[Entry]:
    """The annotations of what a ref means: one, or as many as gRefCOCO lists."""
    value = ref.field("ann_id")
    several = [one for one in value if one != _NOTHING] if isinstance(value, list) else [value]
    found = [Entry({"ann_id": one}, ref.where).target("ann_id", annotations, "annotation") for one in several]
    for annotation in found:
        if annotation.key("image_id") != ref.key("image_id"):
            raise InputError(f"{ref.where} has ann_id {shown(value)}, but that is an object of another image.")
    return found


def _expression(sentence: Entry) -> str:
    """The words of a sentence as the data set's authors cleaned them, or as they were written."""
    return sentence.text("raw" if sentence.get("sent") is None else "sent")

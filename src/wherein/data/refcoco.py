"""Reader of RefCOCO, RefCOCO+ and RefCOCOg: a list of refs, and beside it the COCO-format file they point into.

Notable choices:
- the refs are published as a pickle, which can run any code when it is read: only the same content as JSON is read
- the image's name is that of the instances; the `file_name` of a ref names no file
"""

import shlex
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from wherein.data.entry import Entry, read_json, shown
from wherein.data.mask import read_mask
from wherein.data.sample import LabelledBox, Sample, join
from wherein.errors import InputError

INSTANCES = "instances.json"
"""Name of the COCO-format file beside the refs."""
_PICKLES = (".p", ".pkl", ".pickle")
_CONVERT = "import json, pickle, sys; json.dump(pickle.load(open(sys.argv[1], 'rb')), open(sys.argv[2], 'w'))"


def read_refcoco(refs: Path, images: Path, split: str | None = None, instances: Path | None = None) -> Iterator[Sample]:
    """The images of a split in the order its refs name them, each with a labelled box for every expression.

    An expression that two people wrote counts twice, as in the published figures, and crowds that are referred to stay.
    No image is opened, no mask decoded. `split` may be left out where all refs are of one; `instances` is by default
    `instances.json` in the folder of the refs.

    Raises:
        InputError: a file cannot be read or is a pickle, an entry is unusable, or there is no such split.
    """
    if refs.suffix.lower() in _PICKLES:
        names = shlex.join([str(refs), str(refs.with_suffix(".json"))])
        raise InputError(
            f"{refs} is a pickle, which can run any code when it is read, so it is not: convert it in an environment "
            f'that you trust with it, by python -c "{_CONVERT}" {names}'
        )
    chosen = _of_split(refs, split)
    path = instances or refs.with_name(INSTANCES)
    data = Entry(read_json(path), f"The annotation file {path}")
    pictures, annotations = data.table("images"), data.table("annotations")
    objects: dict[int | str, list[LabelledBox]] = defaultdict(list)
    for ref in chosen:
        ref.target("image_id", pictures, "image")
        image, annotation = ref.key("image_id"), ref.target("ann_id", annotations, "annotation")
        if annotation.key("image_id") != image:
            raise InputError(f"{ref.where} has image_id {shown(image)}, but its annotation is of another image.")
        box, mask = annotation.box("bbox"), read_mask(annotation)
        objects[image] += [LabelledBox(_expression(sentence), box, mask) for sentence in ref.entries("sentences")]
    yield from join({key: pictures[key] for key, some in objects.items() if some}, objects, images)


def _of_split(path: Path, split: str | None) -> list[Entry]:
    """The refs in a file that are of a split."""
    values = read_json(path)
    if not isinstance(values, list):
        raise InputError(f"The annotation file {path} is no list, so not RefCOCO's refs; is it {INSTANCES}?")
    refs = [Entry(value, f"{path}, ref[{position}]") for position, value in enumerate(values)]
    splits = sorted({ref.text("split") for ref in refs})
    if split is None and len(splits) > 1 or split is not None and split not in splits:
        given = "none was chosen" if split is None else f"{split!r} is not among them"
        raise InputError(
            f"The refs in {path} have the splits {', '.join(map(shown, splits))}, and {given}: choose one."
        )
    return [ref for ref in refs if split in (None, ref.text("split"))]


def _expression(sentence: Entry) -> str:
    """The words of a sentence as the data set's authors cleaned them, or as they were written."""
    return sentence.text("raw" if sentence.get("sent") is None else "sent")

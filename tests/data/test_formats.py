"""Which layouts are recognised, and the sentence where nothing is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wherein.data import FORMATS, open_dataset
from wherein.errors import InputError

COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}],
}
PAIR = {"file_name": "a.jpg", "phrase": "cat", "bbox": [1, 1, 2, 2]}
REF = {"ann_id": 1, "image_id": 1, "split": "val", "sentences": [{"sent": "it"}]}


def put(root: Path, *files: str, content: Any = COCO) -> Path:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def found(path: Path, **options: Any) -> tuple[str, str | None, Path, bool]:
    """The format, the split, where the image is, and whether its phrases are categories."""
    dataset = open_dataset(path, **options)
    (sample,) = dataset.samples()
    assert sample.phrases() in (["cat"], ["it"])
    return dataset.format, dataset.split, sample.path, dataset.categories


def test_coco_root(tmp_path: Path) -> None:
    put(tmp_path, "annotations/instances_val2017.json", "val2017/a.jpg", "annotations/captions_val2017.json")
    assert found(tmp_path) == ("coco", "val2017", tmp_path / "val2017" / "a.jpg", True)
    file = tmp_path / "annotations" / "instances_val2017.json"
    assert found(file) == ("coco", None, tmp_path / "val2017" / "a.jpg", True)
    assert open_dataset(file).name == open_dataset(tmp_path).name == "val2017"
    put(tmp_path, "annotations/instances_train2017.json")
    assert found(tmp_path, split="val2017")[1] == "val2017"
    with pytest.raises(InputError, match="has the splits 'train2017', 'val2017', and none was chosen: choose one"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="'val' is not among them"):
        open_dataset(tmp_path, split="val")
    with pytest.raises(InputError, match=r"instances_train2017.json are in no usual place: .*\(--images\)"):
        open_dataset(tmp_path, split="train2017")
    with pytest.raises(InputError, match="There is no folder of images .*nowhere"):
        open_dataset(tmp_path, tmp_path / "nowhere", split="val2017")
    assert found(tmp_path, images=tmp_path, split="train2017")[2] == tmp_path / "a.jpg"


def test_coco_folder_and_file(tmp_path: Path) -> None:
    put(tmp_path, "annotations.json", "images/a.jpg", "other.json")
    for path in (tmp_path, tmp_path / "annotations.json", tmp_path / "other.json"):
        assert found(path) == ("coco", None, tmp_path / "images" / "a.jpg", True)
    assert found(tmp_path / "other.json", images=tmp_path)[2] == tmp_path / "a.jpg"


def test_a_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    put(tmp_path, "X.JSON", "images/a.jpg")
    assert found(tmp_path / "X.JSON") == ("coco", None, tmp_path / "images" / "a.jpg", True)
    put(tmp_path, "REFS.JSON", content=[REF])
    put(tmp_path, "instances.json")
    assert found(tmp_path / "REFS.JSON", split="val")[0] == "refcoco"


def test_names_that_are_too_long_are_not_there(tmp_path: Path) -> None:
    put(tmp_path, "annotations.json")
    long = tmp_path / ("a" * 300)
    with pytest.raises(InputError, match="There is no file or folder"):
        open_dataset(long)
    with pytest.raises(InputError, match="There is no folder of images"):
        open_dataset(tmp_path, long)


def test_images_beside_the_folder_of_annotations(tmp_path: Path) -> None:
    """As CVAT writes it."""
    put(tmp_path, "annotations/instances_default.json", "images/a.jpg")
    assert found(tmp_path) == ("coco", "default", tmp_path / "images" / "a.jpg", True)


def test_roboflow(tmp_path: Path) -> None:
    put(tmp_path, "valid/_annotations.coco.json", "train/_annotations.coco.json")
    assert found(tmp_path, split="valid") == ("coco", "valid", tmp_path / "valid" / "a.jpg", True)
    assert found(tmp_path / "valid") == ("coco", None, tmp_path / "valid" / "a.jpg", True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("annotations.json", [PAIR]),
        ("annotations.jsonl", json.dumps(PAIR)),
        ("annotations.jsonl", json.dumps({"img_path": "a.jpg", "expression": "cat", "bbox": [1, 1, 2, 2]})),
        ("annotations.json", [{"image": "a.jpg", "sent": "cat", "bbox": [1, 1, 2, 2]}]),
        ("annotations.csv", "file_name,phrase,x0,y0,x1,y1\na.jpg,cat,1,1,2,2\n"),
    ],
)
def test_pairs(tmp_path: Path, name: str, content: Any) -> None:
    put(tmp_path, name, content=content)
    put(tmp_path, "images/a.jpg")
    for path in (tmp_path, tmp_path / name):
        assert found(path) == ("pairs", None, tmp_path / "images" / "a.jpg", False)
    with pytest.raises(InputError, match="has no splits"):
        open_dataset(tmp_path, split="val")


@pytest.mark.parametrize("images", ["data/refcoco/images", "data/images/mscoco/images/train2014", "data/train2014"])
def test_refcoco_folder(tmp_path: Path, images: str) -> None:
    root = tmp_path / "data" / "refcoco"
    put(root, "refs(unc).json", content=[REF])
    put(root, "instances.json")
    with pytest.raises(InputError, match="no usual place"):
        open_dataset(root)
    (tmp_path / images).mkdir(parents=True)
    for path in (root, root / "refs(unc).json"):
        assert found(path, split="val") == ("refcoco", "val", tmp_path / images / "a.jpg", False)
    put(root, "refs(google).p", content="")
    with pytest.raises(InputError, match=r"holds refs\(google\).p, refs\(unc\).json: give one of these files"):
        open_dataset(root)


def test_the_order_of_the_table_does_not_hide_a_format(tmp_path: Path) -> None:
    """A list of refs is also a list, as pairs are; an instances.json beside it is COCO."""
    put(tmp_path, "refs.json", content=[REF])
    put(tmp_path, "instances.json", "images/a.jpg")
    assert found(tmp_path, split="val")[0] == "refcoco" and found(tmp_path / "instances.json")[0] == "coco"


def test_nothing_is_recognised(tmp_path: Path) -> None:
    put(tmp_path, "readme.txt", "annotations/x.json", "lists/annotations.json.bak")
    for path in (tmp_path, tmp_path / "readme.txt"):
        with pytest.raises(
            InputError, match=r"is not recognised as a data set; this was looked for: coco \(.*\)\.$"
        ) as caught:
            open_dataset(path)
        assert all(f"{name} (" in str(caught.value) for name in FORMATS)
    with pytest.raises(InputError, match=r"looked for: voc \(Annotations"):
        open_dataset(tmp_path, format="voc")
    with pytest.raises(InputError, match="There is no file or folder .*nowhere"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="There is no format 'tar': choose auto, coco, lvis, voc, "):
        open_dataset(tmp_path, format="tar")


@pytest.mark.parametrize("text", ["", "{", "[1,", "[" * 10_000, "nothing"])
def test_a_broken_file_is_told_by_its_reader(tmp_path: Path, text: str) -> None:
    put(tmp_path, "images/a.jpg")
    path = put(tmp_path, "annotations.json", content=text) / "annotations.json"
    with pytest.raises(InputError, match="annotations.json is not JSON"):
        list(open_dataset(path).samples())


def test_the_digest_is_of_the_files(tmp_path: Path) -> None:
    put(tmp_path, "annotations.json", "images/a.jpg")
    before = open_dataset(tmp_path).digest()
    put(tmp_path, "images/a.jpg", content="changed")
    assert open_dataset(tmp_path).digest() == before
    put(tmp_path, "annotations.json", content={**COCO, "info": 1})
    assert open_dataset(tmp_path).digest() != before

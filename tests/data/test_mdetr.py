"""RefCOCO in COCO's shape: each entry of `images` is an expression, and several are of one image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wherein.data import Complaints, open_dataset, read_mdetr
from wherein.errors import InputError


def image(key: int, file: str, caption: Any, **more: Any) -> dict[str, Any]:
    size = {"width": 20, "height": 10, "original_id": 581857, "dataset_name": "refcoco", "tokens_negative": [[0, 4]]}
    return {"file_name": file, "id": key, "caption": caption, **size, **more}


def box(key: int, *sides: float, words: Any = ((0, 4),), **more: Any) -> dict[str, Any]:
    about = {"area": 1, "iscrowd": 0, "category_id": 1, "id": 100 + key, "original_id": 7}
    return {"image_id": key, "bbox": list(sides), "tokens_positive": words, **about, **more}


FILE: dict[str, Any] = {
    "info": {"description": "COCO 2014 Dataset"},
    "licenses": [],
    "images": [image(0, "b.jpg", "lower shirt"), image(1, "a.jpg", " the dog"), image(2, "b.jpg", "left man")],
    "annotations": [box(0, 1, 2, 3, 4), box(1, 0, 0, 5, 5, iscrowd=1), box(2, 5, 2, 3, 4)],
    "categories": [{"id": 1, "name": "object"}],
}


def put(root: Path, content: Any = FILE, name: str = "mdetr_annotations/finetune_refcoco_val.json") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (root / "train2014").mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def changed(**lists: list[Any]) -> dict[str, Any]:
    """The file with more entries in its lists."""
    return {**FILE, **{name: [*FILE[name], *more] for name, more in lists.items()}}


def test_every_expression_is_a_pair(tmp_path: Path) -> None:
    dataset = open_dataset(put(tmp_path))
    assert (dataset.format, dataset.name, dataset.split, dataset.categories) == ("refcoco", "refcoco", "val", False)
    first, second = dataset.samples()
    assert (first.name, first.path, first.width, first.height) == ("b.jpg", tmp_path / "train2014" / "b.jpg", 20, 10)
    assert [(one.phrase, one.box.tolist()) for one in first.objects] == [
        ("lower shirt", [1, 2, 4, 6]),
        ("left man", [5, 2, 8, 6]),
    ]
    assert second.phrases() == ["the dog"] and first.absent == second.absent == ()  # a crowd that is referred to stays
    assert first.objects[1].where.endswith("finetune_refcoco_val.json, annotations[2]")


def test_the_order_of_the_lists_and_the_length_of_the_others_do_not_matter(tmp_path: Path) -> None:
    long = {"annotations": [box(0, 1, 2, 3, 4, segmentation=[[1] * 400_000]), *FILE["annotations"][1:]], **FILE}
    dataset = open_dataset(put(tmp_path, {name: long[name] for name in ("annotations", "categories", "images")}))
    assert dataset.format == "refcoco" and len(list(dataset.samples())) == 2


@pytest.mark.parametrize(
    ("name", "called", "split"),
    [
        ("finetune_refcoco+_testA.json", "refcoco+", "testA"),
        ("finetune_refcocog_test.json", "refcocog", "test"),
        ("finetune_refcoco_val_hard.json", "finetune_refcoco_val_hard", None),  # somebody's choice of it
        ("annotations.json", "mine", None),
    ],
)
def test_the_file_tells_set_and_split(tmp_path: Path, name: str, called: str, split: str | None) -> None:
    path = put(tmp_path, name=f"mine/{name}")
    dataset = open_dataset(path, split=split)
    assert (dataset.format, dataset.name, dataset.split) == ("refcoco", called, split)
    with pytest.raises(InputError, match="has no splits, but the split 'train' was chosen"):
        open_dataset(path, split="train")


def test_a_folder(tmp_path: Path) -> None:
    put(tmp_path, name="annotations.json")
    assert open_dataset(tmp_path).format == "refcoco" and len(list(open_dataset(tmp_path).samples())) == 2
    with pytest.raises(InputError, match="not recognised"):
        open_dataset(tmp_path, format="coco")


def test_an_expression_may_mean_several_objects_or_none(tmp_path: Path) -> None:
    content = changed(images=[image(3, "a.jpg", "a zebra")], annotations=[box(2, 9, 2, 3, 4)])
    first, second = open_dataset(put(tmp_path, content)).samples()
    assert [one.phrase for one in first.objects] == ["lower shirt", "left man", "left man"]
    assert (second.phrases(), second.absent) == (["the dog"], ("a zebra",))


@pytest.mark.parametrize(
    ("more", "message", "left"),
    [
        ({"annotations": [box(2, 9, 2, 3, 4, words=[[5, 8]])]}, r"annotations\[3\] stands for other words", ["a.jpg"]),
        ({"annotations": [box(1, 9, 2)]}, r"annotations\[3\] has bbox \[9, 2\]", ["b.jpg"]),
        ({"annotations": [box(9, 1, 1, 1, 1)]}, "no image with an expression has this id", ["b.jpg", "a.jpg"]),
        (  # is that box the zebra's?
            {"images": [image(3, "c.jpg", "a zebra")], "annotations": [box(9, 1, 1, 1, 1)]},
            "no image with an expression has this id",
            ["b.jpg", "a.jpg"],
        ),
        ({"annotations": [box(1, 9, 2, 30, 4)]}, r"annotations\[3\] has the box .* image of 20 x 10", ["b.jpg"]),
        ({"images": [image(3, "a.jpg", "")]}, r"images\[3\] has caption ''", ["b.jpg"]),
        ({"images": [image(3, "a.jpg", None)]}, r"images\[3\] has caption None", ["b.jpg"]),
        ({"images": [image(3, "../a.jpg", "it")]}, r"images\[3\] has file_name '../a.jpg'", ["b.jpg", "a.jpg"]),
        ({"images": [image(1, "b.jpg", "it")]}, r"images\[3\] repeats the id 1", []),  # of which is box 1?
        ({"images": [7]}, r"images\[3\] is 7", ["b.jpg", "a.jpg"]),
    ],
)
def test_a_wrong_record_costs_its_image(tmp_path: Path, more: dict[str, Any], message: str, left: list[str]) -> None:
    path = put(tmp_path, changed(**more))
    with pytest.raises(InputError, match=message) as caught:
        list(read_mdetr(path, tmp_path))
    assert str(path) in str(caught.value)
    complaints = Complaints(lambda line: None)
    assert [sample.name for sample in read_mdetr(path, tmp_path, complaints)] == left
    assert len(complaints.sentences) == 1


def test_a_file_that_is_a_list_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a JSON object"):
        list(read_mdetr(put(tmp_path, [1]), tmp_path))

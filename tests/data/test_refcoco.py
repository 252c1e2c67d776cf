"""RefCOCO's refs: which expressions become pairs, and the sentence for each way in which the files can be wrong."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from wherein.data import Complaints, Sample, open_dataset, read_refcoco
from wherein.errors import InputError

RUNS = {"size": [4, 6], "counts": [4, 8, 12]}
INSTANCES: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "COCO_7.jpg", "width": 6, "height": 4},
        {"id": 8, "file_name": "COCO_8.jpg", "width": 6, "height": 4},
        {"id": 9, "file_name": "COCO_9.jpg", "width": 6, "height": 4},
    ],
    "annotations": [
        {"id": 70, "image_id": 7, "category_id": 1, "bbox": [1, 0, 2, 4], "segmentation": RUNS, "iscrowd": 1},
        {"id": 71, "image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 4]},
        {"id": 80, "image_id": 8, "category_id": 1, "bbox": "never referred to, so never read"},
        {"id": 81, "image_id": 8, "category_id": 1, "bbox": [2, 2, 2, 2]},
        {"id": 90, "image_id": 9, "category_id": 1, "bbox": [2, 2, 2, 2]},
    ],
}


def ref(ann: int, split: str, *sentences: str) -> dict[str, Any]:
    texts = [{"sent": text, "raw": text.upper(), "tokens": text.split()} for text in sentences]
    name = f"COCO_{ann // 10}_{ann}.jpg"  # as published: with the object's number, so not the image's name
    return {"ref_id": ann, "ann_id": ann, "image_id": ann // 10, "split": split, "file_name": name, "sentences": texts}


REFS = [
    ref(81, "val", "right man"),
    ref(71, "val", "left man", "the left man", "left man"),
    ref(70, "testA", "the crowd"),
    ref(70, "val", "left man"),
    ref(90, "val"),
]


def read(folder: Path, split: str | None = "val", refs: Any = None, instances: Any = None) -> list[Sample]:
    (folder / "refs.json").write_text(json.dumps(REFS if refs is None else refs))
    (folder / "instances.json").write_text(json.dumps(INSTANCES if instances is None else instances))
    return list(read_refcoco(folder / "refs.json", folder / "images", split))


def test_every_expression_of_the_split_is_a_pair(tmp_path: Path) -> None:
    second, first = read(tmp_path)  # in the order of the refs; the image whose ref has no sentence is not there
    assert (first.name, first.path, first.width, first.height) == (
        "COCO_7.jpg",
        tmp_path / "images" / "COCO_7.jpg",
        6,
        4,
    )
    assert [one.phrase for one in first.objects] == ["left man", "the left man", "left man", "left man"]
    assert [one.box.tolist() for one in first.objects] == [[0, 0, 1, 4]] * 3 + [[1, 0, 3, 4]]
    assert [one.mask is None for one in first.objects] == [True, True, True, False]
    assert first.objects[3].mask is not None and first.objects[3].mask.decode(4, 6).sum() == 8
    assert (second.name, [one.phrase for one in second.objects]) == ("COCO_8.jpg", ["right man"])


def test_a_split_is_chosen(tmp_path: Path) -> None:
    (crowd,) = read(tmp_path, "testA")  # people refer to crowds, too
    assert [one.phrase for one in crowd.objects] == ["the crowd"]
    for split, message in ((None, "none was chosen"), ("test", "'test' is not among them")):
        with pytest.raises(InputError, match=rf"refs.json have the splits 'testA', 'val', and {message}"):
            read(tmp_path, split)
    assert len(read(tmp_path, None, [one for one in REFS if one["split"] == "val"])) == 2


def test_a_sentence_as_it_was_written_will_do(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, refs=[{**REFS[0], "sentences": [{"raw": "Right man!"}, {"sent": None, "raw": "He"}]}])
    assert [one.phrase for one in sample.objects] == ["Right man!", "He"]


def test_instances_elsewhere(tmp_path: Path) -> None:
    read(tmp_path)
    (tmp_path / "instances.json").rename(tmp_path / "other.json")
    assert len(list(read_refcoco(tmp_path / "refs.json", tmp_path, "val", tmp_path / "other.json"))) == 2
    with pytest.raises(InputError, match="Cannot read the annotation file .*instances.json: No such file"):
        list(read_refcoco(tmp_path / "refs.json", tmp_path, "val"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ann_id": 5}, r"refs.json, ref\[0\] has ann_id 5, but no annotation has this id"),
        ({"image_id": 5}, r"ref\[0\] has image_id 5, but no image has this id"),
        ({"image_id": 7}, r"ref\[0\] has ann_id 81, but that is an object of another image"),
        ({"ann_id": 80}, r"instances.json, annotations\[2\] has bbox 'never"),
        ({"split": None}, r"ref\[0\] has split None"),
        ({"sentences": "left"}, r"ref\[0\] has sentences 'left', but it must be a list"),
        ({"sentences": ["left"]}, r"ref\[0\], sentences\[0\] is 'left', but must be a JSON object"),
        ({"sentences": [{"sent": " "}]}, r"sentences\[0\] has sent ' '"),
        ({"sentences": [{"tokens": []}]}, r"sentences\[0\] has no 'raw'"),
    ],
)
def test_a_wrong_ref_is_told(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, refs=[{**REFS[0], **changes}])


def test_other_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"refs.json is no list, so not RefCOCO's refs; is it instances.json\?"):
        read(tmp_path, refs=INSTANCES)
    with pytest.raises(InputError, match=r"instances.json, images\[1\] repeats the id 7"):
        read(tmp_path, instances={**INSTANCES, "images": [INSTANCES["images"][0]] * 2})
    named = [{**image, "file_name": "a.jpg"} for image in INSTANCES["images"]]
    with pytest.raises(InputError, match="repeats the file_name 'a.jpg'"):
        read(tmp_path, instances={**INSTANCES, "images": named})


@pytest.mark.parametrize("name", ["refs(unc).p", "refs.pickle", "REFS.P"])
def test_the_published_pickle_is_read(tmp_path: Path, name: str) -> None:
    expected = [(sample.name, sample.phrases()) for sample in read(tmp_path)]
    (tmp_path / name).write_bytes(pickle.dumps(REFS, 2))
    assert [(one.name, one.phrases()) for one in read_refcoco(tmp_path / name, tmp_path, "val")] == expected
    (tmp_path / name).write_bytes(pickle.dumps([Path("a")], 2))
    with pytest.raises(InputError, match="is not a pickle of plain values"):
        list(read_refcoco(tmp_path / name, tmp_path, "val"))


def test_an_expression_may_mean_several_objects_or_none(tmp_path: Path) -> None:
    refs = [
        {**ref(70, "val", "both", "the two"), "ann_id": [70, 71], "no_target": False},
        {**ref(71, "val", "a zebra"), "ann_id": [-1], "no_target": True},
        {**ref(81, "val", "him"), "ann_id": [81]},
        {**ref(90, "val", "nobody"), "ann_id": []},
    ]
    first, second, third = read(tmp_path, refs=refs)
    assert [(one.phrase, one.box.tolist()) for one in first.objects] == [
        ("both", [1, 0, 3, 4]),
        ("both", [0, 0, 1, 4]),
        ("the two", [1, 0, 3, 4]),
        ("the two", [0, 0, 1, 4]),
    ]
    assert first.absent == ("a zebra",) and first.phrases() == ["both", "the two"]
    assert second.phrases() == ["him"] and second.absent == ()
    assert (third.name, third.objects, third.absent) == ("COCO_9.jpg", (), ("nobody",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ann_id": [70, 5]}, r"ref\[0\] has ann_id 5, but no annotation has this id"),
        ({"ann_id": [70, 81]}, r"ref\[0\] has ann_id \[70, 81\], but that is an object of another image"),
        ({"ann_id": [[70]]}, r"ref\[0\] has ann_id \[70\], but it must be an integer"),
    ],
)
def test_a_wrong_list_of_objects_is_told(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, refs=[{**ref(70, "val", "it"), **changes}])


@pytest.mark.parametrize(
    ("folder", "file", "splits"),
    [
        ("refcoco", "refs(unc).p", ("train", "val", "testA", "testB")),
        ("refcoco+", "refs(unc).p", ("train", "val", "testA", "testB")),
        ("refcocog", "refs(umd).p", ("train", "val", "test")),
        ("refcocog", "refs(google).p", ("train", "val")),
        ("grefcoco", "grefs(unc).json", ("train", "val", "testA", "testB")),
    ],
)
def test_the_splits_of_the_published_files(tmp_path: Path, folder: str, file: str, splits: tuple[str, ...]) -> None:
    root = tmp_path / folder
    (root / "images").mkdir(parents=True)
    (root / "instances.json").write_text(json.dumps(INSTANCES))
    refs = [ref(71, split, f"of {split}") for split in splits]
    (root / file).write_bytes(pickle.dumps(refs, 2) if file.endswith(".p") else json.dumps(refs).encode())
    for split in splits:
        for path in (root, root / file):
            dataset = open_dataset(path, split=split)
            assert (dataset.format, dataset.split) == ("refcoco", split)
            assert [sample.phrases() for sample in dataset.samples()] == [[f"of {split}"]]
    with pytest.raises(InputError, match="none was chosen: choose one"):
        list(open_dataset(root).samples())


def test_an_expression_that_means_nothing_through_the_front_door(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "instances.json").write_text(json.dumps(INSTANCES))
    refs = [{**ref(71, "val", "a zebra", "no one"), "ann_id": [-1], "category_id": [-1], "no_target": True}]
    (tmp_path / "grefs(unc).json").write_text(json.dumps(refs))
    (sample,) = open_dataset(tmp_path, split="val").samples()
    assert (sample.name, sample.objects, sample.absent) == ("COCO_7.jpg", (), ("a zebra", "no one"))


def test_outlines_that_nobody_asks_for_take_no_memory(tmp_path: Path) -> None:
    """The instances of RefCOCO are ten times those that a split refers to."""
    outline = [[n / 7 for n in range(2000)]]
    many = [{**INSTANCES["annotations"][4], "id": n, "segmentation": outline} for n in range(1000, 1200)]
    read(tmp_path, instances={**INSTANCES, "annotations": [*INSTANCES["annotations"], *many]})
    size = (tmp_path / "instances.json").stat().st_size
    tracemalloc.start()
    try:
        assert len(list(read_refcoco(tmp_path / "refs.json", tmp_path, "val"))) == 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * size  # its bytes and its text


def test_an_image_with_a_bad_ref_is_left_out(tmp_path: Path) -> None:
    read(tmp_path)
    refs = [*REFS, 7, {**ref(81, "val", "he"), "ann_id": 5}, {**ref(90, "?"), "split": None}]
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    complaints = Complaints(lambda line: None)
    (sample,) = read_refcoco(tmp_path / "refs.json", tmp_path, "val", complain=complaints)
    assert sample.name == "COCO_7.jpg"
    for sentence, word in zip(
        complaints.sentences, ("ref[5] is 7", "ref[6] has ann_id 5", "ref[7] has split None"), strict=True
    ):
        assert word in sentence

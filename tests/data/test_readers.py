"""Readers: what they yield for good files, and the sentence for each way in which a file can be wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wherein.data import Complaints, Sample, read_coco, read_pairs
from wherein.errors import InputError

COCO: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48},
        {"id": "two", "file_name": "deep/b.jpg"},
        {"id": 3, "file_name": "c.jpg", "width": 10, "height": 10},
    ],
    "categories": [{"id": 5, "name": "Teddy Bear"}, {"id": 6, "name": "pottedplant"}],
    "annotations": [
        {"id": 1, "image_id": "two", "category_id": 6, "bbox": [1, 2, 3.5, 4], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 5, "bbox": [0, 0, 10, 20], "iscrowd": 1},
        {"id": 3, "image_id": 1, "category_id": 5, "bbox": [5, 6, 0, 8]},
        {"id": 4, "image_id": 1, "category_id": 6, "bbox": [5, 6, 7, 8]},
    ],
}
PAIRS: list[dict[str, Any]] = [
    {"file_name": "a.jpg", "phrase": " a Red mug ", "bbox": [1, 2, 3, 4]},
    {"file_name": "b.jpg", "phrase": "cat", "bbox": [0, 0, 5, 5]},
    {"file_name": "a.jpg", "phrase": "cat", "bbox": [9, 9, 1, 1]},
]


def write(folder: Path, value: Any) -> Path:
    path = folder / "annotations.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def coco(folder: Path, value: Any) -> list[Sample]:
    return list(read_coco(write(folder, value), folder / "images"))


def pairs(folder: Path, value: Any) -> list[Sample]:
    return list(read_pairs(write(folder, value), folder / "images"))


def test_coco(tmp_path: Path) -> None:
    first, second, third = coco(tmp_path, COCO)
    assert (first.name, first.path, first.width, first.height) == ("a.jpg", tmp_path / "images" / "a.jpg", 64, 48)
    assert [one.phrase for one in first.objects] == ["teddy bear", "pottedplant"]  # the crowd is gone
    assert first.objects[1].box.tolist() == [5, 6, 12, 14] and first.objects[1].box.dtype == np.float64
    assert (second.name, second.width, second.height) == ("deep/b.jpg", None, None)
    assert second.objects[0].box.tolist() == [1, 2, 4.5, 6]
    assert third.objects == ()


def test_pairs(tmp_path: Path) -> None:
    first, second = pairs(tmp_path, PAIRS)
    assert (first.name, first.width) == ("a.jpg", None)
    assert [one.phrase for one in first.objects] == ["a Red mug", "cat"]
    assert first.objects[1].box.tolist() == [9, 9, 10, 10]
    assert [one.phrase for one in second.objects] == ["cat"]


def test_distinct_phrases(tmp_path: Path) -> None:
    (sample,) = pairs(tmp_path, [{**PAIRS[0], "phrase": word, "file_name": "a.jpg"} for word in ("b", "a", "b")])
    assert sample.phrases() == ["b", "a"]


def set_in(value: Any, *keys: Any, to: Any) -> Any:
    changed = copy.deepcopy(value)
    place = changed
    for key in keys[:-1]:
        place = place[key]
    if to is KeyError:
        del place[keys[-1]]
    else:
        place[keys[-1]] = to
    return changed


ESCAPES = [
    "../a.jpg",
    "/etc/passwd",
    "x/../../a.jpg",
    "C:\\a.jpg",
    "..\\a.jpg",
    "\\\\host\\a.jpg",
    ".",
    "",
    "a\0.jpg",
    7,
]
BOXES = [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, -3, 4], [1, 2, 3, float("nan")], [1, 2, float("inf"), 4], "1234", None]
BOXES += [[1, 2, 3, "4"], [1, 2, 3, True], [1, 2, 3, 10**400], {"x": 1}]


@pytest.mark.parametrize("name", ESCAPES)
def test_file_names_stay_in_the_folder(tmp_path: Path, name: Any) -> None:
    with pytest.raises(InputError, match=r"images\[1\] has file_name"):
        coco(tmp_path, set_in(COCO, "images", 1, "file_name", to=name))
    with pytest.raises(InputError, match=r"annotations\.json, pair\[2\] has file_name"):
        pairs(tmp_path, set_in(PAIRS, 2, "file_name", to=name))


@pytest.mark.parametrize("box", BOXES)
def test_boxes_are_checked(tmp_path: Path, box: Any) -> None:
    with pytest.raises(InputError, match=r"annotations\[3\] has bbox .* must be \[x, y, width, height\]"):
        coco(tmp_path, set_in(COCO, "annotations", 3, "bbox", to=box))
    with pytest.raises(InputError, match=r"pair\[0\] has bbox"):
        pairs(tmp_path, set_in(PAIRS, 0, "bbox", to=box))


@pytest.mark.parametrize(
    ("keys", "to", "message"),
    [
        (["images"], KeyError, "has no 'images'"),
        (["annotations"], {}, "must be a list"),
        (["images", 0], 3, r"images\[0\] is 3, but must be a JSON object"),
        (["images", 0, "id"], "two", r"images\[1\] repeats the id 'two'"),
        (["images", 0, "id"], None, r"images\[0\] has id None"),
        (["images", 0, "id"], [1], "integer or a text"),
        (["images", 0, "file_name"], "c.jpg", r"images\[2\] repeats the file_name 'c.jpg'"),
        (["images", 0, "file_name"], KeyError, "has no 'file_name'"),
        (["images", 0, "width"], 0, "width 0, but it must be a positive"),
        (["images", 0, "height"], "48", "height '48'"),
        (["categories", 1, "id"], 5, r"categories\[1\] repeats"),
        (["categories", 1, "name"], " ", r"categories\[1\] has name"),
        (["annotations", 0, "image_id"], 9, "no image has this id"),
        (["annotations", 0, "category_id"], 9, "no named category has this id"),
        (["annotations", 3, "id"], 1, r"annotations\[3\] repeats the id 1"),
        (["annotations", 3, "bbox"], [60, 6, 5.5, 8], r"annotations\[3\] has the box .* its image of 64 x 48 pixels"),
        (["annotations", 0, "iscrowd"], "no", "must be 0 or 1"),
        (["annotations", 0, "bbox"], KeyError, "has no 'bbox'"),
    ],
)
def test_a_wrong_coco_file_is_told(tmp_path: Path, keys: list[Any], to: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        coco(tmp_path, set_in(COCO, *keys, to=to))
    assert str(tmp_path / "annotations.json") in str(caught.value)


def left(value: Any, folder: Path, read: Any = read_coco) -> tuple[list[str], list[str]]:
    """The images that are left of a file with bad records, and the complaints."""
    complaints = Complaints(lambda line: None)
    return [sample.name for sample in read(write(folder, value), folder, complaints)], complaints.sentences


@pytest.mark.parametrize(
    ("keys", "to", "names", "words"),
    [
        (["annotations", 0, "bbox"], [1, 2], ["a.jpg", "c.jpg"], ["annotations[0] has bbox"]),
        (["annotations", 0], 7, ["a.jpg", "deep/b.jpg", "c.jpg"], ["annotations[0] is 7"]),  # of an image nobody knows
        (["annotations", 0, "image_id"], 9, ["a.jpg", "deep/b.jpg", "c.jpg"], ["no image has this id"]),
        (["annotations", 1, "iscrowd"], "no", ["deep/b.jpg", "c.jpg"], ["annotations[1] has iscrowd"]),
        (["annotations", 3, "id"], 1, ["deep/b.jpg", "c.jpg"], ["annotations[3] repeats the id 1"]),
        (["annotations", 3, "bbox"], [0, 0, 66, 1], ["deep/b.jpg", "c.jpg"], ["annotations[3] has the box"]),
        (["annotations", 3, "bbox"], [0, 0, 65, 49], ["a.jpg", "deep/b.jpg", "c.jpg"], []),  # over by one pixel
        (["images", 0, "file_name"], "../a", ["deep/b.jpg", "c.jpg"], ["images[0] has file_name"]),
        (["images", 2, "file_name"], "a.jpg", ["deep/b.jpg"], ["images[2] repeats the file_name"]),
        (["images", 2, "width"], "wide", ["a.jpg", "deep/b.jpg"], ["images[2] has width"]),
        (["images", 2, "id"], 1, ["deep/b.jpg"], ["images[2] repeats the id 1", *["no image has this id"] * 3]),
        (
            ["categories", 0, "name"],
            "",
            ["deep/b.jpg", "c.jpg"],
            ["categories[0] has name", "annotations[2] has category"],
        ),
        (["categories", 0, "id"], 6, ["c.jpg"], ["categories[1] repeats the id 6", *["no named category"] * 3]),
    ],
)
def test_an_image_with_a_bad_record_is_left_out(
    tmp_path: Path, keys: list[Any], to: Any, names: list[str], words: list[str]
) -> None:
    found, sentences = left(set_in(COCO, *keys, to=to), tmp_path)
    assert found == names
    for sentence, word in zip(sentences, words, strict=True):
        assert word in sentence and str(tmp_path / "annotations.json") in sentence


def test_a_pair_that_is_bad_costs_its_image(tmp_path: Path) -> None:
    found, (sentence,) = left(set_in(PAIRS, 2, "bbox", to=[1]), tmp_path, read_pairs)
    assert found == ["b.jpg"] and "pair[2] has bbox [1]" in sentence
    found, sentences = left([7, *set_in(PAIRS, 1, "file_name", to="/b")], tmp_path, read_pairs)
    assert found == ["a.jpg"] and len(sentences) == 2


def test_a_side_may_be_written_with_a_point(tmp_path: Path) -> None:
    first, *_ = coco(tmp_path, set_in(COCO, "images", 0, "width", to=64.0))
    assert first.width == 64 and type(first.width) is int
    for side in (64.5, float("inf"), float("nan"), -1.0):
        with pytest.raises(InputError, match="but it must be a positive number of pixels"):
            coco(tmp_path, set_in(COCO, "images", 0, "width", to=side))


def test_where_things_come_from(tmp_path: Path) -> None:
    first, _, third = coco(tmp_path, COCO)
    path = f"The annotation file {tmp_path / 'annotations.json'}"
    assert (first.where, third.where) == (f"{path}, images[0]", f"{path}, images[2]")
    assert [one.where for one in first.objects] == [f"{path}, annotations[{n}]" for n in (2, 3)]
    assert pairs(tmp_path, PAIRS)[1].where == f"{tmp_path / 'annotations.json'}, pair[1]"


def test_complaints_are_told_up_to_twenty() -> None:
    told: list[str] = []
    complaints = Complaints(told.append)
    for n in range(1, 1023):
        complaints(InputError(f"line\n {n}"))
        assert len(told) == min(n, 20)
    complaints.tell_the_rest()
    assert told == [*(f"line {n}" for n in range(1, 21)), "... and 1,002 more complaints"]
    assert len(complaints.sentences) == 1022


def lines(folder: Path, name: str, text: str | bytes, complaints: Complaints | None = None) -> list[Sample]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_pairs(path, folder, *([complaints] if complaints else [])))


def test_pairs_as_json_lines(tmp_path: Path) -> None:
    text = "\ufeff" + "\n\n".join(json.dumps(pair) for pair in PAIRS)
    first, second = lines(tmp_path, "a.jsonl", text)
    assert [one.phrase for one in first.objects] == ["a Red mug", "cat"] and second.name == "b.jpg"
    assert first.objects[1].where == f"{tmp_path / 'a.jsonl'}, line 5"
    complaints = Complaints(lambda line: None)
    (left,) = lines(tmp_path, "a.jsonl", text.replace('"cat"', '""', 1) + '\n{\n[1]\n"\xff', complaints)
    assert left.name == "a.jpg"
    for sentence, word in zip(
        complaints.sentences, ("line 3 has phrase ''", "line 6 is not JSON", "line 7 is [1]", "line 8"), strict=True
    ):
        assert f"a.jsonl, {word}" in sentence


SHIKRA = {"img_path": "a.jpg", "expression": "her", "bbox": [1, 2, 3.5, 4], "dataset_name": "refcoco"}
QWEN = {"image": "data/coco/b.jpg", "sent": "him ", "bbox": [1, 2, 3.5, 4], "height": 48, "width": 64}
CONVENTIONS = [(SHIKRA, "a.jpg", "her", None), (QWEN, "data/coco/b.jpg", "him", 64)]


@pytest.mark.parametrize(("pair", "name", "phrase", "width"), CONVENTIONS)
@pytest.mark.parametrize("listed", [False, True])
def test_refcoco_as_others_pass_it_around(
    tmp_path: Path, pair: dict[str, Any], name: str, phrase: str, width: int | None, listed: bool
) -> None:
    text = json.dumps([pair, pair]) if listed else f"{json.dumps(pair)}\n{json.dumps(pair)}"
    (sample,) = lines(tmp_path, "a.json" if listed else "a.jsonl", text)
    assert (sample.name, sample.path, sample.width) == (name, tmp_path / name, width)
    assert [(one.phrase, one.box.tolist()) for one in sample.objects] == [(phrase, [1, 2, 3.5, 4])] * 2  # corners


def test_an_image_by_its_path_on_another_machine(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"")
    for path in ("data/coco/b.jpg", "/home/me/b.jpg", "../b.jpg", "b.jpg"):
        (sample,) = lines(tmp_path, "a.jsonl", json.dumps({**QWEN, "image": path}))
        assert sample.path == tmp_path / "b.jpg"
    (tmp_path / "data" / "coco").mkdir(parents=True)
    (tmp_path / "data" / "coco" / "b.jpg").write_bytes(b"")
    (sample,) = lines(tmp_path, "a.jsonl", json.dumps(QWEN))
    assert sample.name == "data/coco/b.jpg"
    for pair, field in (({**QWEN, "image": "/home/me/c.jpg"}, "image"), ({**PAIRS[0], "file_name": "/b.jpg"}, "file")):
        with pytest.raises(InputError, match=rf"line 1 has {field}.* must stay inside the images folder"):
            lines(tmp_path, "a.jsonl", json.dumps(pair))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ({**PAIRS[2], **QWEN}, "line 2 has 'file_name' and 'image' and 'phrase' and 'sent', but must have one pair of"),
        ({"file_name": "a.jpg", "sent": "it", "bbox": [1, 2, 3, 4]}, "line 2 has 'file_name' and 'sent', but must"),
        ({"image": "a.jpg", "phrase": "it", "bbox": [1, 2, 3, 4]}, "line 2 has 'image' and 'phrase', but must have"),
        ({"file_name": "a.jpg", "bbox": [1, 2, 3, 4]}, "line 2 has 'file_name', but must have"),
        ({**SHIKRA, "bbox": [1, 2, 3]}, "line 2 has 'img_path', but an earlier pair 'file_name': keep to one"),
        ({"path": "a.jpg", "text": "it"}, "line 2 has no image and no phrase, but must have one pair of 'file_name'"),
    ],
)
def test_a_mixture_of_names_is_told_and_costs_its_image(tmp_path: Path, pair: dict[str, Any], message: str) -> None:
    text = "\n".join(map(json.dumps, [PAIRS[0], pair, PAIRS[1]]))
    complaints = Complaints(lambda line: None)
    left = [sample.name for sample in lines(tmp_path, "a.jsonl", text, complaints)]
    assert left == (["a.jpg", "b.jpg"] if "path" in pair else ["b.jpg"])
    (sentence,) = complaints.sentences
    assert f"{tmp_path / 'a.jsonl'}, {message}" in sentence


def test_other_fields_beside_ours_are_let_be(tmp_path: Path) -> None:
    (sample,) = lines(tmp_path, "a.jsonl", json.dumps({**PAIRS[0], "image": "http://x/y.jpg", "sent": None}))
    assert sample.name == "a.jpg" and sample.objects[0].box.tolist() == [1, 2, 4, 6]


@pytest.mark.parametrize("box", [[1, 2, 0, 4], [1, 2, 3, 1], [1, 2, 3], [1, 2, 3, "4"], None, [1, 2, float("nan"), 4]])
def test_corners_are_checked(tmp_path: Path, box: Any) -> None:
    with pytest.raises(InputError, match=r"line 1 has bbox .*, but it must be \[x0, y0, x1, y1\] in pixels"):
        lines(tmp_path, "a.jsonl", json.dumps({**SHIKRA, "bbox": box}))


TABLE = """phrase,file_name,x0,y0,x1,y1,note
 a Red mug ,a.jpg,1,2,4,6,x
cat,b.jpg,0,0,5,5.5,
"a ""big"" cat",a.jpg,9,9,9,9,
"""


def test_pairs_as_a_table(tmp_path: Path) -> None:
    first, second = lines(tmp_path, "a.csv", "\ufeff" + TABLE)
    assert [one.phrase for one in first.objects] == ["a Red mug", 'a "big" cat']
    assert first.objects[0].box.tolist() == [1, 2, 4, 6] and second.objects[0].box.tolist() == [0, 0, 5, 5.5]
    assert first.objects[1].where == f"{tmp_path / 'a.csv'}, line 4"


def test_the_size_of_an_image_in_a_table(tmp_path: Path) -> None:
    """Columns of other names than ours are let be, whatever is in them."""
    text = "file_name,phrase,x0,y0,x1,y1,width,height,image,sent,segmentation\na.jpg,it,1,2,3,4,64,48.0,b,c,d\n"
    (sample,) = lines(tmp_path, "A.CSV", text)
    assert (sample.width, sample.height, sample.objects[0].mask) == (64, 48, None)
    (sample,) = lines(tmp_path, "a.csv", text.replace("64,48.0", ","))
    assert (sample.width, sample.height) == (None, None)
    with pytest.raises(InputError, match="line 2 has width 'wide', but it must be a positive number"):
        lines(tmp_path, "a.csv", text.replace("64", "wide"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("cat,,1,2,3,4", "line 5 has file_name ''"),
        ("cat,/a.jpg,1,2,3,4", "line 5 has file_name '/a.jpg'"),
        (",a.jpg,1,2,3,4", "line 5 has phrase ''"),
        ("cat,a.jpg,1,2,3", "line 5 has y1 ''"),
        ("cat,a.jpg,1,2,3,four", "line 5 has y1 'four', but it must be a finite number"),
        ("cat,a.jpg,nan,2,3,4", "line 5 has x0 nan"),
        ("cat,a.jpg,5,2,3,4", r"line 5 has the corners \[5.0, 2.0, 3.0, 4.0\], but x1 must not be less than x0"),
        ("cat,a.jpg,-2,2,3,4", r"line 5 has the box \[-2.0"),
        ("cat,a.jpg," + "1" * 200_000, "is not CSV in UTF-8: field larger"),
    ],
)
def test_a_wrong_row_is_told(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lines(tmp_path, "a.csv", TABLE + row)


def test_a_wrong_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="header of .*a.csv lacks y1: it must name file_name,phrase,x0,y0,x1,y1"):
        lines(tmp_path, "a.csv", TABLE.replace("y1", "height"))
    with pytest.raises(InputError, match="lacks file_name, phrase"):
        lines(tmp_path, "a.csv", "")
    with pytest.raises(InputError, match="is not CSV in UTF-8"):
        lines(tmp_path, "a.csv", TABLE.encode() + b"\xff")


@pytest.mark.parametrize("read", [coco, pairs])
@pytest.mark.parametrize("text", ["", "{", "[1,", "[" * 100_000, "\ud800", "9" * 5000])
def test_a_file_that_is_not_json(tmp_path: Path, read: Callable[[Path, Any], list[Sample]], text: str) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError, match="is not JSON"):
        list((read_coco if read is coco else read_pairs)(path, tmp_path))


def test_the_other_format_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="list of pairs"):
        coco(tmp_path, PAIRS)
    with pytest.raises(InputError, match="COCO format"):
        pairs(tmp_path, COCO)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read the annotation file .*nothing.json: No such file"):
        list(read_coco(tmp_path / "nothing.json", tmp_path))


def test_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert len(pairs(tmp_path, "\ufeff" + json.dumps(PAIRS))) == 2


def test_real_annotations(evalset: Path) -> None:
    folder = evalset / "coco_train2017_mini"
    complaints = Complaints(lambda line: None)
    samples = list(read_coco(folder / "annotations.json", folder / "images", complaints))
    assert len(samples) == 256 and not complaints.sentences
    assert sum(len(sample.objects) for sample in samples) == 2144 - 19  # without the crowds
    assert all(sample.path.is_file() for sample in samples)
    assert sum(len(sample.objects) for sample in read_pairs(folder / "single_phrases.json", folder / "images")) == 510

"""VOC: corners counted from 1, the folder's layout, and the sentence for each way in which a file can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherein.data import Complaints, open_dataset, read_voc
from wherein.errors import InputError

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>{more}</object>"""


def labelled(*corners: Any, name: str = "Cat", difficult: int = 0, more: str = "") -> str:
    return OBJECT.format(*corners, name=name, difficult=difficult, more=more)


def xml(*objects: str, file: str = "000001.jpg", width: Any = 20, height: Any = 10) -> str:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{file}</filename>{size}{''.join(objects)}</annotation>"


def write(root: Path, content: str | bytes, name: str = "000001") -> Path:
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "JPEGImages").mkdir(exist_ok=True)
    path = root / "Annotations" / f"{name}.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_corners_are_inclusive_and_counted_from_one(tmp_path: Path) -> None:
    path = write(tmp_path, xml(labelled(1, 1, 20, 10), labelled("3.5", 2, "3.5", 2, difficult=1, name=" dog ")))
    (sample,) = read_voc([path], tmp_path / "JPEGImages")
    assert (sample.name, sample.path, sample.width, sample.height) == (
        "000001.jpg",
        tmp_path / "JPEGImages" / "000001.jpg",
        20,
        10,
    )
    whole, one = sample.objects
    assert (whole.phrase, whole.box.tolist()) == ("cat", [0, 0, 20, 10])  # the whole image
    assert (one.phrase, one.box.tolist()) == ("dog", [2.5, 1, 3.5, 2])  # one pixel; the difficult count, too
    assert sample.where == str(path) and one.where == f"{path}, object[1]"


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4))
@settings(max_examples=30, deadline=None)
def test_the_box_covers_the_pixels_it_was_drawn_around(
    tmp_path_factory: pytest.TempPathFactory, sides: list[int]
) -> None:
    x0, x1, y0, y1 = *sorted(sides[:2]), *sorted(sides[2:])  # of the first and last pixel, counted from 0
    path = write(tmp_path_factory.mktemp("voc"), xml(labelled(x0 + 1, y0 + 1, x1 + 1, y1 + 1), width=51, height=51))
    (sample,) = read_voc([path], Path("x"))
    assert sample.objects[0].box.tolist() == [x0, y0, x1 + 1, y1 + 1]


def test_parts_are_no_objects(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    (sample,) = read_voc([write(tmp_path, xml(labelled(2, 2, 5, 5, more=part)))], tmp_path)
    assert [one.box.tolist() for one in sample.objects] == [[1, 1, 5, 5]]


BILLION = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not XML: no element found"),
        (xml(labelled(1, 1, 2, 2))[:-5], "is not XML"),
        (b"\xff\xfe\x00", "is not XML"),
        ('<?xml version="1.0" encoding="nonsense"?><a/>', "is not XML"),
        (BILLION + "<annotation>&b;</annotation>", "declares a document type"),
        ('<!DOCTYPE a SYSTEM "http://x/y.dtd"><annotation/>', "declares a document type"),
        (
            '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation>&f;</annotation>',
            "declares a document type",
        ),
        ("<annotation>&undefined;</annotation>", "is not XML: undefined entity"),
        ("<a>" * 200_000, "is not XML"),
        ("<annotation/>", "has filename None"),
        (xml(file="../000001.jpg"), "must stay inside the images folder"),
        (xml(file="000002.jpg"), "has filename '000002.jpg', but it must be that of the image 000001"),
        (xml(width=0), "has width 0, but it must be a positive"),
        (xml(height="10px"), "has height '10px'"),
        (xml(height="-1"), "has height '-1'"),
        (xml(labelled(1, 1, 2, 2, name=" ")), r"object\[0\] has name ' '"),
        (xml("<object><name>a</name></object>"), r"object\[0\] has no 'xmin'"),
        (xml(labelled(1, 1, 2, "")), r"object\[0\] has ymax ''"),
        (xml(labelled(1, "nan", 2, 2)), r"object\[0\] has ymin nan"),
        (xml(labelled(1, 1, "1e999", 2)), r"object\[0\] has xmax inf"),
        (xml(labelled(1, 1, 9, 9), labelled(9, 1, 2, 2)), r"object\[1\] has the corners .* must not be less than xmin"),
        (xml(labelled(1, 1, 22, 10)), r"object\[0\] has the box \[0.0, 0.0, 22.0, 10.0\].*image of 20 x 10 pixels"),
    ],
)
def test_a_wrong_file_is_told_and_left_out(tmp_path: Path, content: str | bytes, message: str) -> None:
    good, bad = write(tmp_path, xml(file="0.jpg"), "0"), write(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        list(read_voc([good, bad], tmp_path))
    assert str(bad) in str(caught.value)
    complaints = Complaints(lambda line: None)
    assert [sample.name for sample in read_voc([bad, good], tmp_path, complaints)] == ["0.jpg"]
    assert len(complaints.sentences) == 1


def test_a_box_may_hang_over_by_a_pixel(tmp_path: Path) -> None:
    (sample,) = read_voc([write(tmp_path, xml(labelled(0, 0, 21, 11)))], tmp_path)
    assert sample.objects[0].box.tolist() == [-1, -1, 21, 11]


def test_the_layout(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2007"
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for n in range(3):
        write(root, xml(labelled(1, 1, 2, 2), file=f"{n}.jpg"), str(n))
    for name, lines in (("test", "2\n0\n"), ("trainval", "1\n"), ("cat_test", "2 -1\n0  1\n")):
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(lines)
    for place in (root, root.parent, tmp_path):
        voc = open_dataset(place, split="test")
        assert (voc.format, voc.name, voc.split, voc.categories) == ("voc", "VOC2007 test", "test", True)
        assert [sample.path for sample in voc.samples()] == [root / "JPEGImages" / f"{n}.jpg" for n in (2, 0)]
        with pytest.raises(InputError, match="VOC2007 has the splits 'test', 'trainval', and none was chosen"):
            open_dataset(place)
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("1\n../1\n")
    with pytest.raises(InputError, match=r"trainval.txt names the image '../1'"):
        open_dataset(root, split="trainval")
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("1\n1\n")
    with pytest.raises(InputError, match="names an image twice"):
        open_dataset(root, split="trainval")
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("1\n7\n")
    voc, complaints = open_dataset(root, split="trainval"), Complaints(lambda line: None)
    assert [sample.name for sample in voc.samples(complaints)] == ["1.jpg"] and len(voc.digest()) == 64
    assert "Cannot read the annotation file" in complaints.sentences[0] and "7.xml" in complaints.sentences[0]


def test_own_lists_and_lists_of_classes(tmp_path: Path) -> None:
    """`cat_val.txt` tells of each image if a cat is in it; `my_val.txt` names images as `val.txt` does."""
    main = tmp_path / "ImageSets" / "Main"
    main.mkdir(parents=True)
    for n in range(2):
        write(tmp_path, xml(file=f"{n}.jpg"), str(n))
    for name, lines in (("cat_val", "0 -1\n1  1\n"), ("dog_val", "\n0  0\n1 -1\n"), ("my_val", "\ufeff1\n")):
        (main / f"{name}.txt").write_text(lines, encoding="utf-8")
    for split in (None, "my_val"):
        voc = open_dataset(tmp_path, split=split)
        assert (voc.split, [sample.name for sample in voc.samples()]) == ("my_val", ["1.jpg"])
    (main / "val.txt").write_text("0\n1\n")
    assert open_dataset(tmp_path, split="my_val").split == "my_val"
    assert len(list(open_dataset(tmp_path, split="val").samples())) == 2
    for split, why in ((None, "none was chosen"), ("cat_val", "'cat_val' is not among them")):
        with pytest.raises(InputError, match=f"has the splits 'my_val', 'val', and {why}"):
            open_dataset(tmp_path, split=split)


def test_names_with_spaces(tmp_path: Path) -> None:
    """`photo 1` is a name, not the word that `photo` has an object of the class."""
    main = tmp_path / "ImageSets" / "Main"
    main.mkdir(parents=True)
    for name in ("photo 1", "photo 2", "my photo", "your photo"):
        write(tmp_path, xml(file=f"{name}.jpg"), name)
    (main / "cat_val.txt").write_text("photo 1 -1\nphoto 2  1\n")
    (main / "val.txt").write_text("photo 2\nphoto 1\n")
    for split in (None, "val"):
        names = [sample.name for sample in open_dataset(tmp_path, split=split).samples()]
        assert names == ["photo 2.jpg", "photo 1.jpg"]
    (main / "train.txt").write_text("my photo\n\n your photo\r\n")
    names = [sample.name for sample in open_dataset(tmp_path, split="train").samples()]
    assert names == ["my photo.jpg", "your photo.jpg"]


def test_a_folder_without_lists_and_two_years(tmp_path: Path) -> None:
    write(tmp_path, xml(file="b.png"), "b")
    write(tmp_path, xml(file="a.png"), "a")
    voc = open_dataset(tmp_path)
    assert (voc.name, [sample.name for sample in voc.samples()]) == (tmp_path.name, ["a.png", "b.png"])
    with pytest.raises(InputError, match="has no splits, but the split 'test' was chosen"):
        open_dataset(tmp_path, split="test")
    for year in ("VOC2007", "VOC2012"):
        (tmp_path / "both" / year).mkdir(parents=True)
        write(tmp_path / "both" / year, xml())
    with pytest.raises(InputError, match="both holds VOC2007, VOC2012: give the folder of one of them"):
        open_dataset(tmp_path / "both")

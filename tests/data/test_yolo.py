"""YOLO folders: shares become pixels, layouts, and the sentence for each way in which a file can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wherein.data import Complaints, open_dataset, read_yolo
from wherein.errors import InputError

NAMES = {0: "Cat", 1: "hot dog", 2: None}


def folder(root: Path, labels: dict[str, str | None], size: tuple[int, int] = (20, 10)) -> Path:
    """A folder images/ and labels/; None is an image without a text file."""
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in labels.items():
        Image.new("RGB", size).save(root / "images" / f"{name}.png")
        if text is not None:
            (root / "labels" / f"{name}.txt").write_text(text)
    return root


def test_shares_become_pixels(tmp_path: Path) -> None:
    folder(tmp_path, {"a": "1 0.5 0.5 0.25 0.2\n\n0 0.5 0.5 1 1\n", "b": None, "c": ""})
    first, second, third = read_yolo(tmp_path / "labels", tmp_path / "images", NAMES)
    assert (first.name, first.width, first.height) == ("a.png", 20, 10)
    assert [(one.phrase, one.box.tolist()) for one in first.objects] == [
        ("hot dog", [7.5, 4, 12.5, 6]),
        ("cat", [0, 0, 20, 10]),
    ]
    assert first.objects[1].where == f"{tmp_path / 'labels' / 'a.txt'}, line 3"
    assert second.objects == () and third.objects == ()


def test_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    folder(tmp_path, {"a": "\ufeff0 0.5 0.5 1 1\n"})
    (sample,) = read_yolo(tmp_path / "labels", tmp_path / "images", NAMES)
    assert sample.objects[0].box.tolist() == [0, 0, 20, 10]


def test_an_outline_is_a_mask_and_the_box_around_it(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    folder(tmp_path, {"a": "0 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6"})
    (sample,) = read_yolo(tmp_path / "labels", tmp_path / "images", NAMES)
    (one,) = sample.objects
    assert one.box.tolist() == [2, 2, 10, 6] and one.mask is not None
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:6, 2:10] = True
    assert (one.mask.decode(10, 20) == mask).all()


def test_the_exif_rotation_counts(tmp_path: Path) -> None:
    folder(tmp_path, {"a": "0 0.5 0.5 1 1"})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "images" / "a.png", exif=exif)
    (sample,) = read_yolo(tmp_path / "labels", tmp_path / "images", NAMES)
    assert sample.objects[0].box.tolist() == [0, 0, 10, 20]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 1", "line 1 is '0 0.5 0.5 1', but must be a class and a box"),
        ("0 0.5 0.5 1 1\n0 0.5 0.5 1 1 1", "line 2 is"),
        ("0 0.5 0.5 1 1 1 1 1", "line 1 is"),
        ("0 0.5 0.5 1 one", "line 1 is"),
        ("0 0.5 0.5 1 nan", "line 1 is"),
        ("0 0.5 0.5 1 inf", "line 1 is"),
        ("0.5 0.5 0.5 1 1", "line 1 is"),
        ("0 0.5 0.5 -1 1", "line 1 is '0 0.5 0.5 -1 1', but the width and height of a box must not be below 0"),
        ("0 0.5 0.5 1 -1", "must not be below 0"),
        ("7 0.5 0.5 1 1", "of class 7, which has no name"),
        ("2 0.5 0.5 1 1", "of class 2, which has no name"),
        ("0 0.5 0.5 1.2 1", r"line 1 has the box \[-2.0, 0.0, 22.0, 10.0\].*20 x 10"),
    ],
)
def test_a_wrong_line_is_told_and_costs_its_image(tmp_path: Path, text: str, message: str) -> None:
    folder(tmp_path, {"a": text, "b": "0 0.5 0.5 1 1"})
    with pytest.raises(InputError, match=message) as caught:
        list(read_yolo(tmp_path / "labels", tmp_path / "images", NAMES))
    assert str(tmp_path / "labels" / "a.txt") in str(caught.value)
    complaints = Complaints(lambda line: None)
    found = read_yolo(tmp_path / "labels", tmp_path / "images", NAMES, complaints)
    assert [sample.name for sample in found] == ["b.png"] and len(complaints.sentences) == 1


def test_images_and_texts_belong_together(tmp_path: Path) -> None:
    folder(tmp_path, {"a": "0 0.5 0.5 1 1", "b": "0 0.5 0.5 1 1"})
    (tmp_path / "images" / "a.png").write_bytes(b"no")
    (tmp_path / "labels" / "lost.txt").write_text("")
    (tmp_path / "labels" / "c.txt").write_bytes(b"\xff")
    Image.new("RGB", (2, 2)).save(tmp_path / "images" / "c.png")
    complaints = Complaints(lambda line: None)
    found = read_yolo(tmp_path / "labels", tmp_path / "images", NAMES, complaints)
    assert [sample.name for sample in found] == ["b.png"]
    for line, word in zip(complaints.sentences, ("image 'lost'", "a.png", "c.txt is no list of boxes"), strict=True):
        assert word in line


def test_the_layouts(tmp_path: Path) -> None:
    plain = folder(tmp_path / "plain", {"a": "1 0.5 0.5 1 1"})
    (plain / "classes.txt").write_text("cat\nhot dog\n")
    dataset = open_dataset(plain)
    assert (dataset.format, dataset.categories, dataset.split) == ("yolo", True, None)
    assert next(dataset.samples()).phrases() == ["hot dog"]
    (plain / "classes.txt").rename(plain / "labels" / "classes.txt")
    assert next(open_dataset(plain).samples()).phrases() == ["hot dog"]

    roboflow = tmp_path / "roboflow"
    for split in ("train", "valid"):
        folder(roboflow / split, {split: "0 0.5 0.5 1 1"})
    (roboflow / "data.yaml").write_text("train: ../train/images\nval: /elsewhere\nnames: [Mug]\nnc: 1\n")
    assert next(open_dataset(roboflow, split="valid").samples()).path == roboflow / "valid" / "images" / "valid.png"
    with pytest.raises(InputError, match="has the splits 'train', 'valid', and none was chosen"):
        open_dataset(roboflow)

    ultralytics = folder(tmp_path / "ultralytics", {})
    for split in ("train2017", "val2017"):
        folder(tmp_path / split, {split: "1 0.5 0.5 1 1"})
        for name in ("images", "labels"):
            (tmp_path / split / name).rename(ultralytics / name / split)
    (ultralytics / "coco.yaml").write_text("names:\n  0: person\n  1: bicycle\n")
    (sample,) = open_dataset(ultralytics, split="val2017").samples()
    assert (sample.name, sample.phrases()) == ("val2017.png", ["bicycle"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (None, "", "has labels, but neither a data.yaml nor a classes.txt"),
        ("data.yaml", "names: [a\n", "data.yaml is not YAML"),
        ("data.yaml", "[" * 100_000, "has YAML aliases or deep lists"),
        ("data.yaml", "a: &a [1]\nnames: [*a, *a]\n", "has YAML aliases"),
        ("data.yaml", "names: !!python/object/apply:os.system [true]\n", "is not YAML"),
        ("data.yaml", "nc: 3\n", "has no list of 'names'"),
        ("data.yaml", "names: cat\n", "has no list of 'names'"),
        ("classes.txt", b"\xff", "does not name classes"),
    ],
)
def test_classes_that_cannot_be_read_are_told(
    tmp_path: Path, name: str | None, text: str | bytes, message: str
) -> None:
    folder(tmp_path, {"a": "0 0.5 0.5 1 1"})
    if name:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path)

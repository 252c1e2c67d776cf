"""ReasonSeg: the question, the outlines that lie over each other, the layout, and wrong files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wherein.data import Complaints, open_dataset, read_reasonseg
from wherein.errors import InputError


def outline(label: str, x0: float, y0: float, x1: float, y1: float) -> dict[str, Any]:
    return {"label": label, "shape_type": "polygon", "points": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]}


SHAPES = [
    outline("target", 4, 4, 6, 6),  # listed first, and on top: it is the smallest
    outline("ignore", 3, 3, 7, 7),
    outline("target", 0, 0, 9, 9),
    outline("ignore_this", 8, 8, 10, 10),
    outline("flag", 0, 0, 20, 20),
]
GOOD: dict[str, Any] = {"text": ["What can be eaten?", "Where is food?"], "is_sentence": True, "shapes": SHAPES}


def write(folder: Path, content: Any = GOOD, name: str = "a", suffix: str = ".jpg") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}{suffix}").write_bytes(b"")
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def test_the_smaller_outline_is_on_top(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    path = write(tmp_path)
    (sample,) = read_reasonseg([path], tmp_path)
    assert (sample.name, sample.width, sample.phrases()) == ("a.jpg", None, ["What can be eaten?"])
    (one,) = sample.objects
    assert one.box.tolist() == [0, 0, 9, 9] and one.mask is not None and one.where == str(path)
    expected = np.zeros((12, 11), dtype=int)
    expected[0:9, 0:9] = 1
    expected[3:7, 3:7] = 2
    expected[8:10, 8:10] = 2
    expected[4:6, 4:6] = 1
    ignored = one.mask.ignored(12, 11)
    assert ignored is not None
    assert (one.mask.decode(12, 11) == (expected == 1)).all() and (ignored == (expected == 2)).all()


def test_files_written_on_windows(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(json.dumps({**GOOD, "text": ["a café’s door"]}, ensure_ascii=False).encode("cp1252"))
    (sample,) = read_reasonseg([path], tmp_path)
    assert sample.phrases() == ["a café’s door"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": []}, "a.json has text None"),
        ({"text": "why"}, "must be a list"),
        ({"text": [7]}, "has text 7"),
        ({"shapes": {}}, "must be a list"),
        ({"shapes": [SHAPES[1]]}, "has no target among its shapes"),
        ({"shapes": [7]}, r"shapes\[0\] is 7"),
        ({"shapes": [{"label": "target"}]}, r"shapes\[0\] has no 'points'"),
        ({"shapes": [{"label": "target", "points": []}]}, r"must be \[\[x, y\], ...\]"),
        ({"shapes": [{"label": "target", "points": [[1, 2, 3]]}]}, r"must be \[\[x, y\], ...\]"),
        ({"shapes": [{"label": "target", "points": [[1, float("nan")]]}]}, r"must be \[\[x, y\], ...\]"),
        ({"shapes": [{"points": [[1, 2]]}]}, r"shapes\[0\] has no 'label'"),
        ({"shapes": [outline("target", -5, 0, 9, 9)]}, "a.json has the box .*which is not inside its image"),
    ],
)
def test_a_wrong_file_is_told_and_left_out(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    paths = [write(tmp_path, {**GOOD, **changes}), write(tmp_path, name="b")]
    with pytest.raises(InputError, match=message):
        list(read_reasonseg(paths, tmp_path))
    complaints = Complaints(lambda line: None)
    assert [sample.name for sample in read_reasonseg(paths, tmp_path, complaints)] == ["b.jpg"]
    assert len(complaints.sentences) == 1 and str(paths[0]) in complaints.sentences[0]


def test_the_layout(tmp_path: Path) -> None:
    write(tmp_path / "val", name="b")
    write(tmp_path / "val", suffix=".png")
    write(tmp_path / "test")
    (tmp_path / "explanatory").mkdir()
    (tmp_path / "explanatory" / "train.json").write_text("[]")
    found = open_dataset(tmp_path, split="val")
    assert (found.format, found.name, found.split, found.categories) == ("reasonseg", "val", "val", False)
    assert [sample.name for sample in found.samples()] == ["a.png", "b.jpg"]
    assert len(list(open_dataset(tmp_path / "val").samples())) == 2
    with pytest.raises(InputError, match="has the splits 'test', 'val', and none was chosen"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="has no splits"):
        open_dataset(tmp_path / "val", split="val")
    (tmp_path / "val" / "b.json").write_text("{")
    with pytest.raises(InputError, match=r"b.json is not JSON"):
        list(open_dataset(tmp_path / "val").samples())

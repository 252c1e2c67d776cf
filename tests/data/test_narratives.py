"""Localized Narratives: words with their times, strokes of the mouse, and wrong lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wherein.data import Complaints, read_narratives
from wherein.errors import InputError

GOOD: dict[str, Any] = {
    "dataset_id": "mscoco_val2017",
    "image_id": "137576",
    "annotator_id": 93,
    "caption": "In this image there are cows. ",
    "timed_caption": [
        {"utterance": "In this", "start_time": 0.0, "end_time": 0.4},
        {"utterance": "", "start_time": 0.4, "end_time": 1},
    ],
    "traces": [[{"x": 0.2, "y": -0.05, "t": 0.02}, {"x": 0.3, "y": 1, "t": 0.04}], []],
    "voice_recording": "a.ogg",
}


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "narratives.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_a_narrative(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, "", {**GOOD, "dataset_id": "open_images_val", "image_id": "abc"})
    first, second = read_narratives(path, tmp_path / "images")
    assert (first.name, first.path) == ("000000137576.jpg", tmp_path / "images" / "000000137576.jpg")
    assert first.caption == "In this image there are cows." and first.where == f"{path}, line 1"
    assert first.words == (("In this", 0.0, 0.4), ("", 0.4, 1.0))
    assert [stroke.tolist() for stroke in first.strokes] == [[[0.2, -0.05, 0.02], [0.3, 1, 0.04]], []]
    assert first.strokes[1].shape == (0, 3)
    assert (second.name, second.where) == ("abc.jpg", f"{path}, line 3")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("7", "line 2 is 7, but must be a JSON object"),
        ({**GOOD, "dataset_id": "ADE20k", "image_id": "../a"}, "must stay inside the images folder"),
        ({**GOOD, "caption": " "}, "line 2 has caption ' '"),
        ({**GOOD, "timed_caption": [{"utterance": 7}]}, r"timed_caption\[0\] has utterance 7"),
        ({**GOOD, "timed_caption": [{"utterance": "a", "start_time": "0"}]}, r"timed_caption\[0\] has start_time '0'"),
        ({**GOOD, "traces": [[{"x": 1, "y": 2}]]}, r"traces\[0\] must be a list of points"),
        ({**GOOD, "traces": [7]}, r"traces\[0\] must be a list of points"),
        ({**GOOD, "traces": [[], [{"x": 1, "y": 2, "t": "3"}]]}, r"traces\[1\] has a point that is not of finite"),
        ({**GOOD, "traces": [[{"x": 10**400, "y": 2, "t": 3}]]}, "not of finite"),
    ],
)
def test_a_wrong_line_is_told_and_left_out(tmp_path: Path, line: Any, message: str) -> None:
    path = write(tmp_path, GOOD, line, GOOD)
    with pytest.raises(InputError, match=message):
        list(read_narratives(path, tmp_path))
    complaints = Complaints(lambda line: None)
    assert [one.where for one in read_narratives(path, tmp_path, complaints)] == [f"{path}, line 1", f"{path}, line 3"]
    assert len(complaints.sentences) == 1 and str(path) in complaints.sentences[0]


def test_lines_are_read_one_by_one(tmp_path: Path) -> None:
    narratives = read_narratives(write(tmp_path, GOOD, "{"), tmp_path)
    assert next(narratives).words
    with pytest.raises(InputError, match="line 2"):
        next(narratives)
    with pytest.raises(InputError, match="Cannot read the annotation file"):
        next(read_narratives(tmp_path / "nothing.jsonl", tmp_path))

"""Kept answers: found again and never mixed up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wherein.errors import InputError
from wherein.evaluation.transcript import Reply, Transcript
from wherein.journal import Journal

SETTINGS = {"model": "one", "tokens": 9}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(b"a picture")
    return path


def test_a_reply_is_found_again(image: Path, tmp_path: Path) -> None:
    path, reply = tmp_path / "a.jsonl", Reply("[1, 2, 3, 4]\n\u2028 \ud800", 0.5, True, (700, 9))
    transcript = Transcript(path, SETTINGS)
    assert transcript.get(image, "where?") is None
    transcript.add(image, "where?", reply)
    transcript.add(image, "what?", Reply("", 0.1))
    again = Transcript(path, SETTINGS)  # what is added is there at once
    assert again.found == 2 and again.get(image, "where?") == reply
    assert again.get(image, "what?") == Reply("", 0.1)


def test_another_image_or_model_has_no_reply(image: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "a.jsonl", tmp_path / "b" / "cat.png"
    other.parent.mkdir()
    other.write_bytes(b"another picture")
    transcript = Transcript(path, SETTINGS)
    transcript.add(image, "where?", Reply("here", 0.1))
    assert transcript.get(other, "where?") is None
    transcript = Transcript(path, {**SETTINGS, "tokens": 10})
    assert transcript.found == 0 and transcript.get(image, "where?") is None
    transcript.add(image, "where?", Reply("there", 0.1))
    assert Transcript(path, SETTINGS).get(image, "where?") == Reply("here", 0.1)


@pytest.mark.parametrize("row", [{}, {"who": 1}, {"who": "", "image": "", "question": "", "text": "", "tokens": 5}])
def test_a_line_that_is_no_answer_is_told(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Journal(path, {"schema": 1}).add(row)
    content = path.read_bytes()
    with pytest.raises(InputError, match="move it away"):
        Transcript(path, SETTINGS)
    assert path.read_bytes() == content


def test_without_a_path_nothing_is_written(image: Path) -> None:
    transcript = Transcript(None, SETTINGS)
    transcript.add(image, "where?", Reply("here", 0.1))
    assert transcript.get(image, "where?") == Reply("here", 0.1)

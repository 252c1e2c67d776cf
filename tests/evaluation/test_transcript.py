"""Kept answers: found again, never lost, never mixed up, and no foreign file touched."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from wherein.errors import InputError
from wherein.evaluation.transcript import Reply, Transcript

SETTINGS = {"model": "one", "tokens": 9}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(b"a picture")
    return path


def test_a_reply_is_found_again(image: Path, tmp_path: Path) -> None:
    path, reply = tmp_path / "a.jsonl", Reply("[1, 2, 3, 4]\n\u2028 \ud800", 0.5, True, (700, 9))
    with Transcript(path, SETTINGS) as transcript:
        assert transcript.get(image, "where?") is None
        transcript.add(image, "where?", reply)
        transcript.add(image, "what?", Reply("", 0.1))
        assert len(path.read_bytes().splitlines()) == 2  # at once
    with Transcript(path, SETTINGS) as again:
        assert again.found == 2 and again.get(image, "where?") == reply
        assert again.get(image, "what?") == Reply("", 0.1)


def test_another_image_or_model_has_no_reply(image: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "a.jsonl", tmp_path / "b" / "cat.png"
    other.parent.mkdir()
    other.write_bytes(b"another picture")
    with Transcript(path, SETTINGS) as transcript:
        transcript.add(image, "where?", Reply("here", 0.1))
        assert transcript.get(other, "where?") is None
    with Transcript(path, {**SETTINGS, "tokens": 10}) as transcript:
        assert transcript.found == 0 and transcript.get(image, "where?") is None
        transcript.add(image, "where?", Reply("there", 0.1))
    with Transcript(path, SETTINGS) as transcript:
        assert transcript.get(image, "where?") == Reply("here", 0.1)


def test_the_line_of_a_kill_is_dropped_and_the_next_follows_the_last_whole_one(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Transcript(path, SETTINGS) as transcript:
        for number in range(3):
            transcript.add(image, str(number), Reply("here", 0.1))
    whole = path.read_bytes()
    for length in range(len(whole.rpartition(b"\n")[0].rpartition(b"\n")[0]) + 2, len(whole)):
        path.write_bytes(whole[:length])
        with Transcript(path, SETTINGS) as transcript:
            assert transcript.found == 2
            transcript.add(image, "2", Reply("here", 0.1))
        assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"hello", b"{}\n", b'{"who": 1}\n', b"[1]\n", b"\xff\xfe\n", b"[" * 10**5])
def test_a_foreign_file_is_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="move it away"):
        Transcript(path, SETTINGS)
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_written_is_told(image: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot keep the answers"):
        Transcript(tmp_path / "nowhere" / "a.jsonl", SETTINGS)


def test_a_full_disk_is_told(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(line: bytes) -> int:
        raise OSError(28, "No space left on device")

    with Transcript(tmp_path / "a.jsonl", SETTINGS) as transcript:
        whole = transcript._file
        monkeypatch.setattr(transcript, "_file", SimpleNamespace(write=write, name="a.jsonl", close=whole.close))
        with pytest.raises(InputError, match="a.jsonl: No space left on device"):
            transcript.add(image, "where?", Reply("here", 0.1))


def test_without_a_path_nothing_is_written(image: Path) -> None:
    with Transcript(None, SETTINGS) as transcript:
        transcript.add(image, "where?", Reply("here", 0.1))
        assert transcript.get(image, "where?") == Reply("here", 0.1)

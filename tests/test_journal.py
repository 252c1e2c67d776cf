"""Journals: no row lost, none half, none of other settings, and no foreign file touched."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from wherein.errors import InputError
from wherein.journal import Journal, locked

SETTINGS = {"a": 1, "b": [1, None]}


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path, row = tmp_path / "rows.jsonl", {"row": "ä\r\n\u2028 \ud800", "number": 0.1}
    journal = Journal(path, SETTINGS)
    journal.add(row)
    journal.add({})
    assert journal.rows == [] and Journal(path, SETTINGS).rows == [row, {}]
    assert len(path.read_bytes().split(b"\n")) == 4  # the settings, two rows, and nothing behind the last line break


def test_wherever_a_process_died_the_next_follows_the_last_whole_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for number in range(3):
        Journal(path, SETTINGS).add({"number": number})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        found = Journal(path, SETTINGS).rows
        assert found == [{"number": number} for number in range(max(0, whole[:length].count(b"\n") - 1))]
        for number in range(len(found), 3):
            Journal(path, SETTINGS).add({"number": number})
        assert path.read_bytes() == whole


@pytest.mark.parametrize("settings", [{}, {"a": 1}, {**SETTINGS, "a": 2}, {**SETTINGS, "c": 0}])
def test_other_settings_are_refused(settings: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    Journal(path, SETTINGS).add({})
    content = path.read_bytes()
    with pytest.raises(InputError, match=r"was made with [abc] .*, not .*: repeat the options"):
        Journal(path, settings)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"hello", b"{}", b"{}\n", b'{"who": 1}\n', b"[1]\n", b"\xff\xfe\n", b"[" * 10**5 + b"\n", b"\n\n"]
)
def test_a_foreign_file_is_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="write elsewhere"):
        Journal(path, SETTINGS)
    assert path.read_bytes() == content


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    Journal(path, SETTINGS).add({})
    path.write_bytes(path.read_bytes() + b"nonsense\n{")
    with pytest.raises(InputError, match="damaged in line 3"):
        Journal(path, SETTINGS)
    journal = Journal(tmp_path / "others.jsonl", SETTINGS)
    with pytest.raises(InputError, match=r"others.jsonl is damaged, .* move it away"), journal.reading():
        [][0]


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "rows.jsonl"):
        with pytest.raises(InputError, match=f"^Cannot write to {path}: [A-Z][a-z ]*[.]$"):
            Journal(path, {})
    Journal(tmp_path / "new" / "rows.jsonl", {}).add({})


def test_a_full_disk_is_one_sentence_and_no_row_is_lost(tmp_path: Path) -> None:
    """The limit is on the size of a file, which ends in the midst of a row, as a disk does."""
    path = tmp_path / "rows.jsonl"
    Journal(path, SETTINGS).add({"text": "short"})
    limit = path.stat().st_size + 20
    program = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom wherein.journal import Journal\n"
        f"signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit({resource.RLIMIT_FSIZE}, ({limit}, -1))\n"
        f"Journal(Path(sys.argv[1]), {SETTINGS}).add({{'text': 'a long row' * 99}})"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert done.returncode == 1 and "InputError: Cannot write to" in done.stderr and "File too large" in done.stderr
    assert path.stat().st_size == limit
    Journal(path, SETTINGS).add({"text": "after"})
    assert Journal(path, SETTINGS).rows == [{"text": "short"}, {"text": "after"}]


def test_two_jobs_do_not_mix_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first, second = Journal(path, SETTINGS), Journal(path, SETTINGS)
    first.add({"of": 1})
    with pytest.raises(InputError, match="Another process writes to"):
        second.add({"of": 2})
    first.add({"of": 1})
    assert Journal(path, SETTINGS).rows == [{"of": 1}] * 2


def test_without_a_path_nothing_is_written() -> None:
    journal = Journal(None, SETTINGS)
    journal.add({})
    assert journal.rows == []


def test_one_job_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    new = tmp_path / "new"
    with locked(new), pytest.raises(InputError, match="Another process writes"), locked(new):
        pass
    with locked(new):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Cannot write"), locked(tmp_path / "file"):
        pass

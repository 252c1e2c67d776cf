"""A file that holds what a killed measurement had done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wherein.errors import InputError
from wherein.training.rows import Rows

SETTINGS = {"model": "tiny", "references": ["thing"]}


def test_rows_are_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    first = Rows(tmp_path / "rows", SETTINGS)
    for i in range(3):
        first.add(np.full((2, i + 1), i, np.float32))
    again = Rows(tmp_path / "rows", dict(reversed(SETTINGS.items())))
    assert [row.shape for row in again.done] == [(2, 1), (2, 2), (2, 3)]
    again.add(np.zeros((1, 1)))
    assert len(Rows(tmp_path / "rows", SETTINGS).done) == 4


def test_what_was_measured_with_other_settings_is_kept_aside(tmp_path: Path) -> None:
    first = Rows(tmp_path / "rows", SETTINGS)
    assert first.note is None
    first.add(np.zeros(3))
    other = Rows(tmp_path / "rows", {**SETTINGS, "model": "other"})
    assert other.done == [] and other.note is not None and "rows.old" in other.note
    (tmp_path / "rows.old").replace(tmp_path / "rows")
    again = Rows(tmp_path / "rows", SETTINGS)
    assert len(again.done) == 1 and again.note is not None and "1 images" in again.note


@pytest.mark.parametrize("cut", [1, 40, 130])
def test_a_torn_row_is_dropped_and_the_others_kept(tmp_path: Path, cut: int) -> None:
    rows = Rows(tmp_path / "rows", SETTINGS)
    for i in range(3):
        rows.add(np.full(4, i))
    path = tmp_path / "rows"
    path.write_bytes(path.read_bytes()[:-cut])
    again = Rows(path, SETTINGS)
    assert [row[0] for row in again.done] == [0, 1]
    again.add(np.full(4, 9))
    assert [row[0] for row in Rows(path, SETTINGS).done] == [0, 1, 9]


def test_a_finished_file_goes_and_a_pickle_is_not_read(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows", SETTINGS)
    rows.finish()
    assert not (tmp_path / "rows").exists()
    with (tmp_path / "rows").open("wb") as file:
        np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    assert Rows(tmp_path / "rows", SETTINGS).done == []


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot write"):
        Rows(tmp_path / "none" / "rows", SETTINGS)

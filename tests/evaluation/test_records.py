"""What answers depend on: the code that made them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wherein.evaluation import records


def test_code_that_changed_has_another_digest(tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    file = tmp_path / "methods" / "reading.py"
    file.write_text("THRESHOLD = 0.3")
    first = records.digest_of(tmp_path)
    (tmp_path / "notes.txt").write_text("no code")
    assert records.digest_of(tmp_path) == first
    file.write_text("THRESHOLD = 0.4")
    changed = records.digest_of(tmp_path)
    file.rename(tmp_path / "reading.py")
    assert len({first, changed, records.digest_of(tmp_path)}) == 3


def test_it_is_among_what_answers_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm: Any = SimpleNamespace(name="tiny", fingerprint="f", dtype="float32")
    origin = records.origin(vlm)
    assert origin["model"] == ["tiny", "f", "float32"] and len(origin["code"]) == 16
    monkeypatch.setattr(records, "code", lambda: "other")
    assert records.origin(vlm) == {**origin, "code": "other"}


def test_another_folder_of_images_is_told_apart(tmp_path: Path) -> None:
    names = ["1.jpg", "deep/2.jpg"]
    here, there = ([SimpleNamespace(name=name, path=tmp_path / at / name) for name in names] for at in ("a", "b"))
    found: list[Any] = [records.folders(some) for some in (here, there)]  # type: ignore[arg-type]
    assert found == [[f"{tmp_path.resolve()}/{at}/"] for at in ("a", "b")]

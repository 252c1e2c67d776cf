"""The reliability table as a picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from wherein.calibration import Bin
from wherein.errors import InputError
from wherein.evaluation.calibration_plot import save_plot, save_reliability
from wherein.evaluation.records import Outcome, Record
from wherein.evaluation.report import reliability


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    table = [Bin(0.1, 0.2, 30, 0.15, 0.4), Bin(0.8, 0.9, 10, 0.85, 0.5)]
    flat, steep = (save_plot(rows, tmp_path / f"{i}.png", "pin") for i, rows in enumerate((table, table[:1])))
    with Image.open(flat) as one, Image.open(steep) as other:
        assert one.size == other.size and one.tobytes() != other.tobytes()
    with pytest.raises(InputError, match="No file can be written"):
        save_plot(table, tmp_path / "nowhere" / "plot.png")


def test_methods_whose_score_is_a_probability_have_one(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    record = Record("cat", (0, 0, 10, 10), (0, 0, 10, 8), 0.7, None, 0.8)
    outcomes = [Outcome("a.png", 20, 20, name, 0.1, (record,)) for name in ("pin", "centre")]
    assert [(row.n, row.confidence, row.accuracy) for row in reliability(outcomes, "pin")] == [(1, 0.7, 1.0)]
    written = save_reliability(outcomes, {"pin": "token_probability", "centre": "constant"}, tmp_path)
    assert written == [tmp_path / "pin-calibration.png"] == list(tmp_path.iterdir())

"""Sheets of the best, median and worst answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wherein.errors import InputError
from wherein.evaluation import Journal, Record, gallery, run, save_gallery, select

from .conftest import FakeMethod, no_dogs, whole


def answers(count: int) -> list[gallery.Picked]:
    ious = np.random.default_rng(0).permutation(count) / 100
    return [(str(n), Record("cat", (0, 0, 1, 1), None, None, None, float(iou))) for n, iou in enumerate(ious)]


@pytest.mark.parametrize("count", range(18))
def test_a_few_answers_are_shown_once(count: int) -> None:
    rows = gallery.pick(answers(count))
    shown = [name for row in rows.values() for name, _ in row]
    assert len(shown) == len(set(shown)) == min(count, 15)


def test_rows_hold_what_they_say() -> None:
    rows = {title: [record.iou for _, record in row] for title, row in gallery.pick(answers(31)).items()}
    assert rows["best"] == [0.30, 0.29, 0.28, 0.27, 0.26]
    assert rows["median"] == [0.17, 0.16, 0.15, 0.14, 0.13]
    assert rows["worst"] == [0.04, 0.03, 0.02, 0.01, 0.0]


def test_one_sheet_for_each_method(dataset: Path, tmp_path: Path) -> None:
    samples = select("pin", dataset / "annotations.json", dataset / "images")
    methods = [FakeMethod("whole", whole), FakeMethod("no dogs", no_dogs)]
    outcomes = [outcome for some in run(samples, methods, Journal(None, {})) for outcome in some]
    paths = {sample.name: sample.path for sample in samples}
    written = save_gallery(outcomes, paths, tmp_path)
    assert [path.name for path in written] == ["whole.png", "no dogs.png"]
    sheet = np.asarray(Image.open(written[0]))
    colours = {tuple(int(value) for value in pixel) for pixel in np.unique(sheet.reshape(-1, 3), axis=0)}
    assert {(0, 158, 115), (213, 94, 0)} <= colours  # the truth and the prediction
    with pytest.raises(InputError, match="No file can be written in the folder"):
        save_gallery(outcomes, paths, tmp_path / "nowhere")

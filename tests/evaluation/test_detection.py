"""Average precision: equal to pycocotools on random boxes, and what is counted of outcomes."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

import numpy as np
import pytest

from wherein.errors import InputError
from wherein.evaluation import Outcome, Record
from wherein.evaluation.detection import FIGURES, Found, average_precision, of_outcomes

pytest.importorskip("faster_coco_eval")


def made_up(seed: int) -> tuple[list[Found], list[Found]]:
    """Predictions near the truth, beside it, and twice."""
    random = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(40):
        image, name = f"{random.integers(6)}.jpg", str(random.choice(["cat", "dog", "cup"]))
        x, y, w, h = random.uniform(5, 150, 4)
        truths.append(Found(image, name, (x, y, x + w, y + h)))
        for _ in range(random.integers(3)):
            x0, y0, x1, y1 = np.array(truths[-1].box) + random.normal(0, 8, 4)
            found.append(Found(image, name, (x0, y0, x1, y1), float(random.random())))
    found += [Found("0.jpg", "plane", (0, 0, 9, 9), 0.9), Found("9.jpg", "cat", (0, 0, 9, 9), 0.95)]
    return found, truths


def by_pycocotools(found: list[Found], truths: list[Found]) -> list[float]:
    coco, evaluate = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    images = sorted({one.image for one in [*truths, *found]})
    names = sorted({one.name for one in [*truths, *found]})

    def entries(some: list[Found]) -> list[dict[str, Any]]:
        return [
            {
                "id": key,
                "image_id": images.index(one.image),
                "category_id": names.index(one.name),
                "bbox": [one.box[0], one.box[1], one.box[2] - one.box[0], one.box[3] - one.box[1]],
                "area": (one.box[2] - one.box[0]) * (one.box[3] - one.box[1]),
                "iscrowd": 0,
                "score": one.score,
            }
            for key, one in enumerate(some, 1)
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        true = coco.COCO()
        true.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(images))],
            "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
            "annotations": entries(truths),
        }
        true.createIndex()
        run = evaluate.COCOeval(true, true.loadRes(entries(found)), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [float(value) for value in run.stats]


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_pycocotools(seed: int) -> None:
    found, truths = made_up(seed)
    expected = by_pycocotools(found, truths)
    for name, value in average_precision(found, truths).items():
        assert (-1 if value is None else value) == pytest.approx(expected[FIGURES[name]]), name


def test_nothing_found_and_nothing_to_find() -> None:
    truth = Found("a.jpg", "cup", (0, 0, 10, 10))
    assert average_precision([], [truth])["ap"] == 0
    assert average_precision([truth], [truth])["ap_l"] is None  # there is no large box
    with pytest.raises(InputError, match="no true box"):
        average_precision([truth], [])


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    average_precision(*made_up(0))
    assert capsys.readouterr().out == ""


def test_without_the_evaluator_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(InputError, match=r"wherein\[eval\]"):
        average_precision(*made_up(0))


def test_a_phrase_asked_once_has_one_prediction() -> None:
    answer = (0.0, 0.0, 5.0, 5.0)
    records = (
        Record("cat", (0, 0, 5, 5), answer, 0.8, None, 1.0),
        Record("cat", (9, 9, 12, 12), answer, 0.8, None, 0.0),
        Record("dog", (0, 0, 9, 9), None, None, None, 0.0),
    )
    found, truths = of_outcomes([Outcome("a.jpg", 20, 20, "pin", 0.1, records)])
    assert found == [Found("a.jpg", "cat", answer, 0.8)]
    assert [truth.name for truth in truths] == ["cat", "cat", "dog"]

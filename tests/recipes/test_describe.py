"""What recipes/pixel_small/describe.py counts: every box against all of its phrases, and dense captions against all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wherein.data.narratives import Narrative, Utterance
from wherein.data.sample import LabelledBox, Sample
from wherein.methods.pixel.captions import Caption, PlacedWord, Region

CUP, DOG = np.array([0.0, 0, 20, 20]), np.array([30.0, 10, 60, 40])


class Reader:
    """It says of a box how wide it is, and finds the cup."""

    def captions_of(self, seen: Any, boxes: Any) -> list[Caption]:
        return [Caption(f"{box[2] - box[0]:.0f} wide", [], 0.5, True) for box in boxes]

    def dense(self, seen: Any, most: int, least: float) -> list[Region]:
        return [Region(Caption("a cup", [], 0.5, True), box=CUP, proposal_score=0.9)]


@pytest.fixture
def describe(small: Callable[[str], ModuleType]) -> Any:
    return small("describe")


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 48)).save(path)
    objects = (LabelledBox("a cup", CUP), LabelledBox("a dog", DOG), LabelledBox("something white", CUP))
    objects += (LabelledBox("a line", DOG[[0, 1, 0, 3]]),)  # as real files hold a few
    return [Sample("a.png", path, 64, 48, objects), Sample("b.png", path, 64, 48, ())]


def test_a_box_has_all_its_phrases(describe: Any, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    scored = []

    def score(said: list[str], true: list[list[str]]) -> dict[str, float]:
        scored.append((said, true))
        return {"bleu1": 0.25}

    monkeypatch.setattr(describe, "score_captions", score)
    method: Any = SimpleNamespace(see=lambda image: image, reader=Reader(), proposes=True)
    figures = describe.figures(method, samples, lambda said, true: float(said in true))
    assert scored == [(["20 wide", "30 wide"], [["a cup", "something white"], ["a dog"]])]
    assert figures == {"images": 1, "boxes": 2, "bleu1": 0.25, "dense_map": 0.51, "found_map": 0.51}  # one of two
    wrong = describe.figures(method, samples, lambda said, true: 0.1)
    assert wrong["found_map"] == 0.51 and wrong["dense_map"] == pytest.approx(0.17)  # above 0 and 0.05 of six
    method.proposes = False
    assert describe.figures(method, samples, lambda *_: 1.0).keys() == {"images", "boxes", "bleu1"}


def test_traces_are_held_against_the_mouse(describe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caption whose words are where the mouse was costs nothing; one that points at the other corner does."""
    path = tmp_path / "a.png"
    Image.new("RGB", (100, 50)).save(path)
    strokes = (np.array([[0.1, 0.2, 0.0], [0.3, 0.6, 1.0]]), np.array([[0.5, 0.2, 2.0], [0.9, 0.8, 3.0]]))
    told = Narrative("a.png", path, "cup dog", (Utterance("cup", 0, 1), Utterance("dog", 2, 3)), strokes, "")
    boxes = [np.array([10.0, 10, 30, 30]), np.array([50.0, 10, 90, 40])]
    monkeypatch.setattr(describe, "score_captions", lambda said, true: {"bleu1": float(said[0] in true[0])})

    def figures(places: list[Any]) -> dict[str, float]:
        words = [PlacedWord(word, 4 * i, 4 * i + 3, places[i][:2], places[i]) for i, word in enumerate(("cup", "dog"))]
        method: Any = SimpleNamespace(caption=lambda image: Caption("cup dog", words, 0.5, True))
        return describe.traced(method, [told, told], list)  # type: ignore[no-any-return]

    assert figures(boxes) == {"images": 1, "traces": 2, "bleu1": 1.0, "lbm0": 0.0, "lbm1": 0.0}
    swapped = figures(boxes[::-1])
    assert swapped["lbm1"] == 0 and swapped["lbm0"] == pytest.approx((0.4 + 0.0 + 0.6 + 0.2) / 4)

"""The standard scorers of captions: worked examples, and one sentence where they are not installed."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest

from wherein.errors import InputError
from wherein.evaluation.captions import FIGURES, Meteor, score_captions
from wherein.evaluation.dense import Described, box_map, dense_map

SAID = ["A cup on a table.", "two dogs in the snow", "a spoon"]
TRUE = [["a cup on a table", "a white cup"], ["two dogs play in the snow"], ["an old house"]]


@pytest.fixture
def scorers() -> None:
    pytest.importorskip("pycocoevalcap.meteor.meteor", reason="needs pip install 'wherein[captions]'")
    if shutil.which("java") is None:
        pytest.skip("needs Java")


def test_without_the_scorers_or_java_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    for ask in (lambda: score_captions(SAID, TRUE), Meteor):
        with pytest.raises(InputError, match=r"pip install 'wherein\[captions\]'"):
            ask()


def test_java_is_asked_for(scorers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="Java"):
        score_captions(SAID, TRUE)


@pytest.mark.parametrize(("said", "true"), [([], []), (["a cup"], []), (["a cup"], [[]])])
def test_a_caption_needs_a_true_one(said: list[str], true: list[list[str]]) -> None:
    with pytest.raises(InputError, match="need true ones"):
        score_captions(said, true)


def test_worked_examples(scorers: None) -> None:
    exact = score_captions([texts[0].upper() + "!" for texts in TRUE], TRUE)  # neither case nor punctuation counts
    assert list(exact) == list(FIGURES)
    assert exact["bleu1"] == pytest.approx(1) and exact["rouge_l"] == pytest.approx(1) and exact["meteor"] > 0.99
    figures = score_captions(SAID, TRUE)
    # 5 of 5, 5 of 5, 0 of 2 words; 12 words against 5 + 6 + 3 true ones: exp(1 - 14 / 12)
    assert figures["bleu1"] == pytest.approx(10 / 12 * 2.718281828 ** (1 - 14 / 12), abs=1e-6)
    assert 0 < figures["meteor"] < exact["meteor"] and 0 < figures["cider"] < exact["cider"]
    assert all(0 <= figures[name] <= exact[name] for name in FIGURES)


def test_dense_captions_by_meteor(scorers: None) -> None:
    boxes = np.array([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    meteor = Meteor()
    assert meteor("A red cup.", ["a red cup"]) > 0.99 and meteor("a red cup", ["two dogs"]) == 0
    image = Described(boxes, ["a red cup", "two dogs"], np.array([0.9, 0.8]), boxes, ["a red cup", "a grey house"])
    assert (box_map([image]) == 1).all()
    assert (dense_map([image], meteor) == 0.51).all()  # the second has the box right, and no word

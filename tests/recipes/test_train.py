"""Which stages a call trains, and which steps of the caption stage are look-ups."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fractions import Fraction
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def train(recipe: Callable[[str], ModuleType]) -> ModuleType:
    pytest.importorskip("peft")
    return recipe("train")


@pytest.mark.parametrize(
    ("share", "steps"), [("1/3", [2, 5, 8, 11]), ("3/4", [1, 2, 3, 5, 6, 7, 9, 10, 11]), ("0", []), ("1", [*range(12)])]
)
def test_look_ups_lie_evenly_among_the_captions(train: ModuleType, share: str, steps: list[int]) -> None:
    assert [step for step in range(12) if train.looks_up(step, train.share(share))] == steps


def test_a_share_is_a_share(train: ModuleType) -> None:
    assert train.share("0.75") == Fraction(3, 4)
    for text in ("", "half", "1/0", "-1/3", "1.5"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no share"):
            train.share(text)


@pytest.mark.parametrize(
    ("only", "done"),
    [(None, ["lookup", "encoded", "words", "captions"]), ("lookup", ["lookup"]), ("words", ["encoded", "words"])],
)
def test_a_stage_can_be_trained_alone(
    train: ModuleType, monkeypatch: pytest.MonkeyPatch, only: str | None, done: list[str]
) -> None:
    found: list[str] = []

    def fit(make: Any, steps: int, rate: float, style: float, path: Any, settings: Any) -> None:
        found.append(path.stem)

    monkeypatch.setattr(train, "Questions", lambda *given: SimpleNamespace(drill=None, mixed=None))
    monkeypatch.setattr(train, "Composites", lambda *given: found.append("encoded"))
    monkeypatch.setattr(train, "fit_words", lambda *given: found.append("words"))
    monkeypatch.setattr(train, "Sources", lambda images: None)
    monkeypatch.setattr(train, "partial", lambda *given: None)
    monkeypatch.setattr(train, "quiet_style", lambda *given: None)
    learner = SimpleNamespace(vlm=SimpleNamespace(connector=None), fit=fit)
    counts = {"lookup_steps": 1, "word_steps": 1, "steps": 1, "images": 2, "many": 1, "seed": 0, "rate": 1.0}
    args = argparse.Namespace(only=only, work="work", start=None, lookup_share=Fraction(1, 2), **counts)
    assert train.stages(learner, SimpleNamespace(names=()), None, args, {}) == (only is None)
    assert found == done

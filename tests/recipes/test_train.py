"""Which steps of the default model's caption stage are look-ups."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fractions import Fraction
from types import ModuleType

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

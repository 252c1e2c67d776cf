"""The loss that teaches the connector words, against its formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

CELLS, ENTRIES = 12, 5  # the last entry is "nothing"


@pytest.fixture
def words(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("words")


def test_a_bare_image_left_as_the_encoder_sees_it_costs_nothing(words: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    seen, other = torch.randn(2, 1, CELLS, ENTRIES, generator=generator).log_softmax(-1)
    missed, stray = words.losses(seen, seen, [[]])
    assert missed == 0 and abs(float(stray)) < 1e-6
    _, changed = words.losses(other, seen, [[]])
    assert float(changed) == pytest.approx(float((seen.exp() * (seen - other)).sum(-1).mean()), abs=1e-5)
    assert changed > 0.1


def test_a_noun_is_missed_by_what_its_ten_best_cells_lack(words: ModuleType) -> None:
    odds = torch.full((1, CELLS, ENTRIES), 0.1)
    odds[..., -1] = 0.6
    odds[0, :4, 0] = 0.5
    odds[0, :4, -1] = 0.2
    missed, _ = words.losses(odds.log(), odds.log(), [[[0]]])
    assert float(missed) == pytest.approx(-math.log((4 * 0.5 + 6 * 0.1) / 10), abs=1e-5)
    both, _ = words.losses(odds.log(), odds.log(), [[[0, 1]]])
    assert float(both) == pytest.approx(-math.log((4 * 0.6 + 6 * 0.2) / 10), abs=1e-5)


def test_a_cell_is_a_noun_or_nothing_or_left_alone(words: ModuleType) -> None:
    odds = torch.tensor([0.2, 0.1, 0.1, 0.1, 0.5]).expand(1, CELLS, ENTRIES).log()
    _, stray = words.losses(odds, odds, [[[0]]])
    assert float(stray) == pytest.approx(-math.log(0.2 + 0.5 + words.ALONE), abs=1e-5)

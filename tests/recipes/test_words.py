"""The loss that teaches the connector words, against its formula; and that a killed stage goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wherein.errors import InputError
from wherein.vlm.connector import SHARE, Connector, likely

CELLS, ENTRIES = 12, 5  # the last entry is "nothing"


@pytest.fixture
def words(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("words")


def test_a_bare_image_left_as_the_encoder_sees_it_costs_nothing(words: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    seen, other = torch.randn(2, 1, CELLS, ENTRIES, generator=generator)
    assert [abs(float(loss)) < 1e-6 for loss in words.losses(seen, seen, [[]])] == [True] * 3
    changed = words.losses(other, seen, [[]])
    before, after = seen.log_softmax(-1), other.log_softmax(-1)
    assert float(changed.stray) == pytest.approx(float((before.exp() * (before - after)).sum(-1).mean()), abs=1e-5)
    before, after = (likely(logits[..., :-1], SHARE) for logits in (seen, other))
    assert float(changed.unlikely) == pytest.approx(float((before.exp() * (before - after)).sum()), abs=1e-5)
    assert changed.missed == 0 and min(changed.stray, changed.unlikely) > 0.05


def test_a_noun_is_missed_by_what_its_best_cells_lack(words: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "BEST", 10 / CELLS)
    odds = torch.full((1, CELLS, ENTRIES), 0.1)
    odds[..., -1] = 0.6
    odds[0, :4, 0] = 0.5
    odds[0, :4, -1] = 0.2
    one = words.losses(odds.log(), odds.log(), [[[0]]])
    assert float(one.missed) == pytest.approx(-math.log((4 * 0.5 + 6 * 0.1) / 10), abs=1e-5)
    either = words.losses(odds.log(), odds.log(), [[[0, 1]]])
    assert float(either.missed) == pytest.approx(-math.log((4 * 0.6 + 6 * 0.2) / 10), abs=1e-5)
    two = words.losses(odds.log(), odds.log(), [[[0], [1, 2]]])
    assert float(two.missed) == pytest.approx(-(math.log(0.26) + math.log(0.2)) / 2, abs=1e-5)


def test_a_noun_is_unlikely_by_what_the_whole_image_speaks_for(words: ModuleType) -> None:
    evidence = torch.randn(2, CELLS, ENTRIES, generator=torch.Generator().manual_seed(1))
    found = words.losses(evidence, evidence, [[[0, 2]], [[1]]])
    whole = likely(evidence[..., :-1], SHARE).exp()
    expected = -(math.log(whole[0, 0] + whole[0, 2]) + math.log(whole[1, 1])) / 2
    assert float(found.unlikely) == pytest.approx(expected, abs=1e-5)


def test_a_cell_is_a_noun_or_nothing_or_left_alone(words: ModuleType) -> None:
    odds = torch.tensor([0.2, 0.1, 0.1, 0.1, 0.5]).expand(1, CELLS, ENTRIES).log()
    found = words.losses(odds, odds, [[[0]]])
    assert float(found.stray) == pytest.approx(-math.log(0.2 + 0.5 + words.ALONE), abs=1e-5)


class Images:
    """Composites of noise, in which one of two things is named."""

    features = torch.randn(8, CELLS, 6, generator=torch.Generator().manual_seed(2))
    things = [[(("mug", "tent")[i % 2], None)] for i in range(8)]
    plain = features.flip(1)
    known = range(6)

    def __init__(self, dies_at: float = float("inf")) -> None:
        self.left = dies_at

    def pasted(self, index: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.features[index], self.things[index]

    def prototype(self, rng: np.random.Generator) -> Any:
        return self.features[rng.integers(8)] + 1, []


def learner() -> Any:
    """Stands for the model: a connector of three classes and two names."""
    torch.manual_seed(0)
    connector = Connector(nn.Linear(6, 3), torch.randn(3, 4), torch.randn(2, 4))
    entries = {"mug": [3], "tent": [4]}
    cpu, half = torch.device("cpu"), torch.bfloat16
    return SimpleNamespace(connector=connector, device=cpu, dtype=half, entries=entries.__getitem__)


@pytest.fixture
def short(words: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Steps of four images, each of which leaves a checkpoint."""
    for name, value in {"PASTED": 2, "PLAIN": 1, "PROTOTYPES": 1}.items():
        monkeypatch.setattr(words, name, value)
    monkeypatch.setattr(words.checkpoint, "SAVE_AFTER", -1)
    return words


def test_words_go_on_where_they_were_killed(short: ModuleType, tmp_path: Path) -> None:
    straight, killed = learner(), learner()
    short.fit_words(straight, Images(), 6, 0, tmp_path / "straight.pt", {"seed": 0})
    with pytest.raises(KeyboardInterrupt):
        short.fit_words(killed, Images(dies_at=7), 6, 0, tmp_path / "killed.pt", {"seed": 0})  # in the fourth step
    resumed = learner()  # three steps of two images were left
    short.fit_words(resumed, Images(dies_at=6), 6, 0, tmp_path / "killed.pt", {"seed": 0})
    start, end, again = (vlm.connector.state_dict() for vlm in (learner(), straight, resumed))
    assert all(torch.equal(end[key], again[key]) for key in end)
    assert not torch.equal(start["skip.weight"], end["skip.weight"])


def test_words_of_another_run_are_refused_and_none_are_asked_for_in_no_steps(short: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "words.pt"
    short.fit_words(learner(), Images(), 0, 0, path, {"seed": 0})
    assert not [*tmp_path.iterdir()]
    short.fit_words(learner(), Images(), 2, 0, path, {"seed": 0})
    for steps, seed, key in ((2, 1, "seed 0, not 1"), (3, 0, "steps 2, not 3")):
        with pytest.raises(InputError, match=key):
            short.fit_words(learner(), Images(dies_at=0), steps, seed, path, {"seed": seed})
    left = learner()
    short.fit_words(left, Images(dies_at=0), 0, 1, path, {"seed": 1})
    assert all(
        torch.equal(a, b) for a, b in zip(left.connector.parameters(), learner().connector.parameters(), strict=True)
    )

"""What is replayed on a GPU: rows filled up to few shapes, each recorded once, say what they say without that."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from wherein.vlm.branches import Branch

CELLS = torch.tensor([[0, 2, 5, 7], [1, 2, 3, 11]])


@pytest.fixture
def recipes(recipe: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """`asked` and `recorded`, a recording being the pass itself: there is no GPU here."""
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda module, sample, pool: module)
    return recipe("asked"), recipe("recorded")


def images(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 4, length, generator=torch.Generator().manual_seed(seed))


def questions(asked: ModuleType, longest: int, made_up: bool = False) -> Any:
    rows = [[Branch((5, 6), (7,)), Branch((), tuple(range(9, 9 + longest)))], [Branch((8,), (12, 13), (1.0, 0.5))]]
    return asked.Asked(images(32 if made_up else 8), CELLS, rows, made_up)


@pytest.mark.parametrize("made_up", [False, True])
@pytest.mark.parametrize("longest", [3, 40])
def test_filled_up_rows_have_the_same_loss(
    recipes: tuple[ModuleType, ModuleType], tiny_vlm: Any, made_up: bool, longest: int
) -> None:
    asked, recorded = recipes
    question = questions(asked, longest, made_up)
    plain, filled = asked.loss(tiny_vlm, question), asked.loss(tiny_vlm, question, recorded.Recorded(tiny_vlm))
    for one, other in zip(plain, filled, strict=True):
        torch.testing.assert_close(one, other)


def test_a_shape_is_recorded_once_with_gradients_and_once_without(
    recipes: tuple[ModuleType, ModuleType], tiny_vlm: Any
) -> None:
    asked, recorded = recipes
    decode = recorded.Recorded(tiny_vlm)
    for longest in (3, 5, 40, 4):
        asked.loss(tiny_vlm, questions(asked, longest, made_up=True), decode)
    short, long = recorded.FILLED, 2 * recorded.FILLED
    assert [shape[1] for shape, _ in decode.passes] == [short, long]
    x = images(32).requires_grad_(True)
    asked.loss(tiny_vlm, asked.Asked(x, CELLS, questions(asked, 3).rows, made_up=True), decode)[0].backward()
    assert [(shape[1], learns) for shape, learns in decode.passes] == [(short, False), (long, False), (short, True)]
    assert x.grad is not None and (x.grad.abs().amax(dim=(1, 2)) > 0).all()

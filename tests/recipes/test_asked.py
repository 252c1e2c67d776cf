"""All questions about an image in one pass say what they say when each is asked in a row of its own."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from wherein.vlm.branches import Branch

ROWS = [
    [Branch((), (9, 10, 11)), Branch((5, 6), (7,)), Branch((8,), (12, 13, 14), (1.0, 0.1, 0.5))],
    [Branch((20, 21, 22), (23, 24))],
    [Branch((), (30,)), Branch((5, 6), (40, 41, 42, 43))],
]
CELLS = torch.tensor([[0, 2, 5, 7], [1, 2, 3, 11], [0, 4, 8, 10]])


@pytest.fixture
def asked(recipe: Callable[[str], ModuleType]) -> ModuleType:
    return recipe("asked")


def images(made_up: bool) -> torch.Tensor:
    return torch.randn(3, 4, 32 if made_up else 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("made_up", [False, True])
def test_the_loss_is_that_of_questions_asked_apart(asked: ModuleType, tiny_vlm: Any, made_up: bool) -> None:
    x = images(made_up)
    value, each = asked.loss(tiny_vlm, asked.Asked(x, CELLS, ROWS, made_up))
    if made_up:
        with tiny_vlm.seam("connector_tokens", lambda _: x):
            prefix = tiny_vlm.prefix(torch.zeros(3, 4, 8), cells=CELLS)
    else:
        prefix = tiny_vlm.prefix(x, cells=CELLS)
    apart, tokens = tiny_vlm.loss(prefix, ROWS)
    torch.testing.assert_close(each, tokens)
    torch.testing.assert_close(value, apart)
    assert value != each.mean()  # some count for less


def test_no_question_sees_another(asked: ModuleType, tiny_vlm: Any) -> None:
    x, last = images(False), Branch((50, 51), (52,))
    alone = asked.loss(tiny_vlm, asked.Asked(x[:1], CELLS[:1], [[last]]))[1]
    behind = asked.loss(tiny_vlm, asked.Asked(x[:1], CELLS[:1], [[*ROWS[0], last]]))[1]
    torch.testing.assert_close(behind[-1:], alone)


def test_single_tokens_need_nothing_behind_the_image(asked: ModuleType, tiny_vlm: Any) -> None:
    _, each = asked.loss(tiny_vlm, asked.Asked(images(False), CELLS, [[Branch((), (3 + i,))] for i in range(3)]))
    assert each.shape == (3,) and each.isfinite().all()


def test_gradients_reach_the_images(asked: ModuleType, tiny_vlm: Any) -> None:
    x = images(True).requires_grad_(True)
    asked.loss(tiny_vlm, asked.Asked(x, CELLS, ROWS, made_up=True))[0].backward()
    assert x.grad is not None and (x.grad.abs().amax(dim=(1, 2)) > 0).all()

"""What is learnt and what is not: masks of the losses, their values against plain loops, one gradient a task."""

from __future__ import annotations

import doctest
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wherein.methods.pixel import losses
from wherein.methods.pixel.model import PixelLM

END, FILLED = 1, -100


def test_the_worked_example() -> None:
    result = doctest.testmod(losses, extraglobs={"torch": torch})
    assert result.attempted and not result.failed


def slow_text_loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    total, count = 0.0, 0
    for row, aims in zip(logits.tolist(), labels.tolist(), strict=True):
        for values, aim in zip(row, aims, strict=True):
            if aim == FILLED:
                continue
            norm = math.log(sum(math.exp(v) for v in values))
            for i, value in enumerate(values):
                share = 0.9 if i == aim else 0.1 / (len(values) - 1)
                total -= share * (value - norm)
            count += 1
    return total / count


def test_text_loss() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 7), torch.tensor([[2, 1, FILLED], [6, 0, 1]])
    assert losses.text_loss(logits, labels).item() == pytest.approx(slow_text_loss(logits, labels), rel=1e-5)
    assert losses.text_loss(logits, torch.full((2, 3), FILLED)).item() == 0


def test_pl_3_tokens_without_a_place() -> None:
    """The end, filler, and targets of all zeros count for nothing, whatever is said of them."""
    labels = torch.tensor([[5, 6, END, FILLED]])
    true = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0] * 2] * 2, [[9.0, 9.0]] * 2, [[9.0, 9.0]] * 2]])
    placed = losses.places(labels, true, END)
    assert placed.tolist() == [[True, False, False, False]]
    said = torch.full((1, 4, 2, 2), 1000.0, requires_grad=True)
    loss = losses.point_loss(said, true, placed)
    loss.backward()
    assert loss.item() == pytest.approx(1000 - 2.5)
    assert said.grad is not None and (said.grad[0, 1:] == 0).all() and (said.grad[0, 0] == 0.25).all()


def test_pl_3_without_a_place_the_head_learns_nothing(model: PixelLM, batch: dict[str, Any]) -> None:
    out = model(**{**batch, "points": torch.zeros(3, 4, 2, 2)})
    gradients = torch.autograd.grad(out.loss, list(model.point_head.parameters()), allow_unused=True)
    assert out.point_loss == 0 and all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize(
    ("labels", "at"),
    [
        ([5, 6, 7, END], [2]),
        ([5, END, FILLED, FILLED], [0]),
        ([5, 6, 7, 8], []),  # cut off
        ([END, FILLED, FILLED, FILLED], []),
        ([5, END, END, FILLED], [0]),
    ],
)
def test_pl_5_the_last_word(labels: list[int], at: list[int]) -> None:
    assert losses.last_words(torch.tensor([labels]), END).nonzero()[:, 1].tolist() == at


@given(st.lists(st.integers(2, 9), min_size=1, max_size=12), st.booleans(), st.integers(0, 4))
def test_pl_5_one_place_a_phrase(tokens: list[int], whole: bool, filler: int) -> None:
    labels = torch.tensor([[*tokens, *([END] if whole else []), *[FILLED] * filler]])
    found = losses.last_words(labels, END).nonzero()[:, 1].tolist()
    assert found == ([len(tokens) - 1] if whole else [])


def test_pl_5_phrases_cut_off_are_counted(model: PixelLM, batch: dict[str, Any]) -> None:
    boxes = torch.tensor([[4.0, 5.0, 30.0, 40.0]]).expand(3, -1)
    out = model(**batch, tasks="refer", boxes=boxes)
    assert out.skipped == 1
    said = out.points[torch.tensor([0, 1]), torch.tensor([2, 0])].flatten(1)
    assert out.point_loss.item() == pytest.approx((said - boxes[:2]).abs().mean().item(), rel=1e-5)


def test_pl_6_phrases_are_not_learnt_by_heart(model: PixelLM, batch: dict[str, Any]) -> None:
    """A batch of phrases has the gradient of its points, and none of its words."""
    boxes = torch.tensor([[4.0, 5.0, 30.0, 40.0]]).expand(3, -1)
    parameters = list(model.extractor.parameters())
    out = model(**batch, tasks="refer", boxes=boxes)
    whole = torch.autograd.grad(out.loss, parameters, retain_graph=True)
    place = torch.autograd.grad(losses.POINT_WEIGHT * out.point_loss, parameters)
    assert out.text_loss == 0 and all(torch.equal(a, b) for a, b in zip(whole, place, strict=True))
    mixed = model(**batch, tasks=["refer", "caption", "refer"], boxes=boxes)
    alone = model(**{**batch, "tasks": "caption"}).logits
    labels = batch["labels"].clone()
    labels[[0, 2]] = FILLED
    assert mixed.text_loss.item() == pytest.approx(losses.text_loss(alone, labels).item(), rel=1e-5)


def test_mask_loss() -> None:
    """Against loops over pixels; what lies outside the picture does not count."""
    torch.manual_seed(0)
    logits, true = torch.randn(2, 4, 4), torch.rand(2, 4, 4) > 0.4
    valid, expected = torch.ones(2, 4, 4, dtype=torch.bool), torch.tensor([0.3, 0.9])
    valid[1, 2:] = False
    total = 0.0
    for i in range(2):
        pixels = [(logits[i, y, x].item(), bool(true[i, y, x])) for y, x in valid[i].nonzero().tolist()]
        focal, both, sums = 0.0, 0.0, 0.0
        for value, is_true in pixels:
            p = 1 / (1 + math.exp(-value))
            right, balance = (p, 0.25) if is_true else (1 - p, 0.75)
            focal -= balance * (1 - right) ** 2 * math.log(right)
            both += p * is_true
            sums += p + is_true
        found = np.array([value > 0 for value, _ in pixels])
        truth = np.array([is_true for _, is_true in pixels])
        iou = (found & truth).sum() / (found | truth).sum()
        total += 20 * focal / len(pixels) + 1 - (2 * both + 1) / (sums + 1) + (expected[i].item() - iou) ** 2
    assert losses.mask_loss(logits, expected, true, valid).item() == pytest.approx(total / 2, rel=1e-5)
    moved = logits.clone()
    moved[1, 2:] = 50.0
    assert losses.mask_loss(moved, expected, true, valid) == losses.mask_loss(logits, expected, true, valid)
    assert losses.mask_loss(logits[:0], expected[:0], true[:0], valid[:0]) == 0


@pytest.mark.parametrize("kind", ["seq2seq", "decoder"])
@pytest.mark.parametrize("length", [1, 40])
def test_pl_11_boxes_of_short_and_long_phrases(tiny: ModuleType, kind: str, length: int) -> None:
    torch.manual_seed(0)
    model = tiny.stirred(PixelLM(tiny.tiny_config(kind)))
    labels = torch.cat([torch.randint(3, 60, (1, length)), torch.tensor([[END]])], dim=1)
    box = torch.tensor([[4.0, 5.0, 30.0, 40.0]])
    out = model(labels, pixels=torch.rand(1, 3, 64, 64) * 255, tasks="refer", boxes=box)
    assert torch.isfinite(out.points).all() and out.point_loss > 0
    out.loss.backward()
    gradients = [p.grad for p in (*model.extractor.parameters(), *model.point_head.parameters())]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert max(g.abs().max() for g in gradients if g is not None) > 0


def test_one_point_a_token(tiny: ModuleType, batch: dict[str, Any]) -> None:
    model = PixelLM(tiny.tiny_config(points_per_token=1))
    out = model(**{**batch, "points": batch["points"][:, :, :1]})
    assert out.points.shape == (3, 4, 1, 2) and torch.isfinite(out.loss)

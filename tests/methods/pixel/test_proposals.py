"""Proposals: which cells speak for which thing, what they lose, that they learn where things are, which are kept."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from wherein.errors import InputError
from wherein.geometry import iou
from wherein.methods.pixel.model import PixelLM
from wherein.methods.pixel.proposals import (
    DISTANCE_WEIGHT,
    HEAT_WEIGHT,
    ProposalHead,
    distinct,
    middles,
    owners,
    proposal_loss,
)

GRID, SIDE = (4, 4), 64


def cells(boxes: list[list[float]]) -> list[int]:
    return owners(torch.tensor(boxes).reshape(-1, 4), *middles(GRID, SIDE, torch.zeros(1))).tolist()


def test_the_cells_in_the_middle_of_a_thing_speak_for_it() -> None:
    middle, step = middles((2, 4), SIDE, torch.zeros(1))
    assert step.tolist() == [16, 32] and middle[:5].tolist() == [[8, 16], [24, 16], [40, 16], [56, 16], [8, 48]]
    assert cells([]) == [-1] * 16
    tiny, wide = [18.0, 2, 22, 6], [0.0, 16, 64, 64]
    assert [i for i, own in enumerate(cells([tiny])) if own == 0] == [1]  # the one that its middle is in
    assert [i for i, own in enumerate(cells([wide])) if own == 0] == [9, 10]  # y from 28 to 52, x from 16 to 48
    assert cells([wide, [16.0, 32, 32, 48]])[9:11] == [1, 0]  # the smaller of two


def test_a_head_that_is_right_loses_nothing() -> None:
    true = torch.tensor([[16.0, 0, 48, 32]])
    speaks = owners(true, *middles(GRID, SIDE, true)) >= 0
    logits = torch.where(speaks, 20.0, -20.0)[None]
    right = true.expand(1, 16, 4)
    assert proposal_loss(logits, right, [true], GRID, SIDE).item() == pytest.approx(0, abs=1e-6)
    off = right + torch.tensor([16.0, 0, 0, 0])  # one edge of four, a cell off
    assert proposal_loss(logits, off, [true], GRID, SIDE).item() == pytest.approx(0.25, abs=1e-6)
    assert proposal_loss(-logits, right, [true], GRID, SIDE).item() > 1
    nothing = proposal_loss(torch.full((1, 16), -20.0), right, [torch.zeros(0, 4)], GRID, SIDE)
    assert nothing.item() == pytest.approx(0, abs=1e-6)


def test_the_weights_of_its_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the head in the package was trained with; each is of its own part."""
    assert (HEAT_WEIGHT, DISTANCE_WEIGHT) == (1, 1)
    true = torch.tensor([[16.0, 0, 48, 32]])
    boxes = true.expand(1, 16, 4) + torch.tensor([16.0, 0, 0, 0])

    def loss() -> float:
        return proposal_loss(torch.zeros(1, 16), boxes, [true], GRID, SIDE).item()

    both, module = loss(), "wherein.methods.pixel.proposals"
    monkeypatch.setattr(f"{module}.HEAT_WEIGHT", 0.0)
    assert loss() == pytest.approx(0.25) and both > 0.5
    monkeypatch.setattr(f"{module}.HEAT_WEIGHT", 0.5)
    assert loss() == pytest.approx(0.25 + (both - 0.25) / 2)


def test_it_learns_where_things_are() -> None:
    """A cell's features say whether a thing covers it; new pictures are of other places."""
    torch.manual_seed(0)
    head = ProposalHead(6, 24)
    optimiser, generator = torch.optim.Adam(head.parameters(), 5e-3), torch.Generator().manual_seed(0)
    look = torch.randn(2, 6, generator=generator)

    def pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        corner = torch.randint(0, 3, (count, 2), generator=generator) * 16.0
        boxes = torch.cat([corner, corner + 32], dim=1)  # of two by two cells
        middle = middles(GRID, SIDE, boxes)[0]
        covered = ((middle > boxes[:, None, :2]) & (middle < boxes[:, None, 2:])).all(-1)
        return look[covered.long()], boxes

    for _ in range(150):
        x, boxes = pictures(16)
        optimiser.zero_grad()
        proposal_loss(*head(x, GRID, SIDE), list(boxes[:, None]), GRID, SIDE).backward()
        optimiser.step()
    x, boxes = pictures(20)
    logits, said = head(x, GRID, SIDE)
    surest = said[torch.arange(20), logits.argmax(1)].detach().double().numpy()
    assert np.diag(iou(surest, boxes.double().numpy())).min() > 0.5


def test_of_boxes_that_are_one_thing_the_surest_is_kept() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30], [0, 0, 4, 4]])
    scores = np.array([0.5, 0.9, 0.7, 0.1])
    assert distinct(boxes, scores, most=9).tolist() == [1, 2, 3]
    assert distinct(boxes, scores, most=2).tolist() == [1, 2]
    assert distinct(np.zeros((0, 4)), np.zeros(0), most=2).tolist() == []


def test_of_a_whole_model(tiny: ModuleType) -> None:
    """It is trained with the words and kept in the adapter; a model without it says so."""
    model: Any = PixelLM(tiny.tiny_config("decoder", proposal_dim=8))
    features = model.features(torch.rand(2, 3, tiny.SIDE, tiny.SIDE) * 255)
    logits, boxes = model.propose(features)
    assert logits.shape == (2, 25) and boxes.shape == (2, 25, 4) and model.grid == (5, 5)
    assert logits.detach().sigmoid().mean() < 0.05 and not boxes.isnan().any()  # nothing anywhere, before training
    own = {name for name in model.trained() if name.startswith("proposals/")}
    assert len(own) == 8 and own <= set(model.kept())
    with pytest.raises(InputError, match="proposes no boxes"):
        PixelLM(tiny.tiny_config("decoder")).propose(features)

"""Proposals for dense captioning: where there is something, whatever it is. Ours, in place of PixelLLM's CenterNet2.

Every cell of the grid of features says whether it is in the middle of a thing, and how far from its own middle the
thing's edges are (Tian et al., FCOS, ICCV 2019). One small convolution, on the features of any encoder; composites
teach it, whose boxes are known, so that no labelled box is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wherein import geometry
from wherein.methods.pixel.losses import sigmoid_focal

MIDDLE = 0.5  # share of a box, along each axis, whose cells speak for it
START = (-4.6, 2.0, 2.0, 2.0, 2.0)
"""What an untrained head says of every cell: one in a hundred is in the middle of a thing, four cells by four."""
SAME = 0.5  # IoU of two proposals that mean one thing
HEAT_WEIGHT, DISTANCE_WEIGHT = 1.0, 1.0
"""Of the focal loss and of distances in cells. PixelLLM's release has 0.5 and 1, for CenterNet2's losses; this head has
others, and the one in the package was trained with these."""


class ProposalHead(nn.Module):
    """Cells float[B, N, C] -> of each, how sure it is in the middle of a thing, and that thing's box; float32."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.cells = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width), nn.GELU())
        self.around = nn.Conv2d(width, width, 3, padding=1)
        self.say = nn.Linear(width, 5)

    def forward(self, cells: Tensor, grid: tuple[int, int], side: int) -> tuple[Tensor, Tensor]:
        """Logits float[B, N] and boxes float[B, N, 4], pixels of the square of `side`; `grid`: rows and columns."""
        x: Tensor = self.cells(cells).transpose(1, 2).reshape(len(cells), -1, *grid)
        x = nn.functional.gelu(x + self.around(x)).flatten(2).transpose(1, 2)
        said = self.say(x) + x.new_tensor(START)  # not the bias: transformers begins each with zero
        middle, step = middles(grid, side, said)
        reach = said[..., 1:] * step.repeat(2) * said.new_tensor([-1, -1, 1, 1])
        return said[..., 0], middle.repeat(1, 2) + reach


def middles(grid: tuple[int, int], side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The middles of the cells float[N, 2], raster order, and a cell's width and height float[2]; pixels."""
    step = like.new_tensor([side / grid[1], side / grid[0]])
    rows, columns = (torch.arange(count, device=like.device) + 0.5 for count in grid)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1).to(like) * step, step


def owners(boxes: Tensor, middle: Tensor, step: Tensor) -> Tensor:
    """Which of the boxes float[K, 4] each cell speaks for, int64[N]; -1: none.

    Those whose middle half it is in, and the box whose middle is in the cell; of several the smallest.
    """
    if not len(boxes):
        return torch.full((len(middle),), -1, device=middle.device)
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    reach = torch.maximum(size * MIDDLE, step) / 2
    speaks = ((middle[:, None] - centre).abs() <= reach).all(-1)
    area = torch.where(speaks, size.prod(1), torch.inf)
    return torch.where(speaks.any(1), area.argmin(1), -1)


def proposal_loss(logits: Tensor, boxes: Tensor, true: Sequence[Tensor], grid: tuple[int, int], side: int) -> Tensor:
    """Focal loss of all cells and the mean distance of edges, in cells, of those that speak for a box.

    Both count alike (`HEAT_WEIGHT`, `DISTANCE_WEIGHT`), where PixelLLM's release halves the first.

    logits float[B, N], boxes float[B, N, 4] · `true`: the boxes float[K, 4] of each picture, pixels of the square.
    """
    middle, step = middles(grid, side, boxes)
    own = torch.stack([owners(each.to(boxes), middle, step) for each in true])
    speaks = own >= 0
    focal = sigmoid_focal(logits, speaks.to(logits)).sum() / speaks.sum().clamp(min=1)
    aims = [each.to(boxes)[who[who >= 0]] for each, who in zip(true, own, strict=True)]
    off = (boxes[speaks] - torch.cat(aims)).abs() / step.repeat(2)
    return HEAT_WEIGHT * focal + DISTANCE_WEIGHT * off.sum() / (4 * speaks.sum().clamp(min=1))


def distinct(boxes: NDArray[np.float64], scores: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """The numbers int64[K] of the surest boxes, at most so many, none of which overlaps a surer one by `SAME`."""
    order, kept = np.argsort(-scores, kind="stable"), list[int]()
    overlaps = geometry.iou(boxes, boxes)
    for i in order.tolist():
        if len(kept) == most:
            break
        if not kept or overlaps[i, kept].max() < SAME:
            kept.append(i)
    return np.array(kept, np.int64)

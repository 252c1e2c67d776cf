"""Places as a model is asked about them, and as SAM's prompt encoder embeds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wherein.errors import InputError

FILLED = 4  # embeddings of a box: two corners, and as many fillers


@dataclass(frozen=True)
class Prompts:
    """One place a row: R boxes, or R sets of points. Model pixels.

    boxes float[R, 4], xyxy · points float[R, P, 2], all on the object. Exactly one of the two is given.
    Raises InputError otherwise.
    """

    boxes: Tensor | None = None
    points: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.boxes is None) == (self.points is None):
            raise InputError("A prompt is boxes or points: give exactly one of the two.")
        given = self.boxes if self.points is None else self.points
        wanted = (2, 4) if self.points is None else (3, 2)
        if given is None or (given.ndim, given.shape[-1]) != wanted:
            shape = "[R, 4]" if self.points is None else "[R, P, 2]"
            raise InputError(f"A prompt has shape {shape}, not {[] if given is None else list(given.shape)}.")
        if not torch.isfinite(given).all():
            raise InputError("A prompt must be of finite numbers.")

    def __len__(self) -> int:
        given = self.points if self.boxes is None else self.boxes
        assert given is not None
        return len(given)

    def to(self, device: torch.device) -> Prompts:
        """The same on another device."""
        return Prompts(*(None if x is None else x.to(device) for x in (self.boxes, self.points)))

    @classmethod
    def whole(cls, sizes: Tensor) -> Prompts:
        """A box over each whole picture, of sizes float[R, 2] (width, height): what stands for no prompt."""
        return cls(boxes=torch.cat([torch.zeros_like(sizes), sizes], dim=1))

    @classmethod
    def within(cls, boxes: Tensor) -> Prompts:
        """Each box float[R, 4] as the 2 x 2 points at its quarters."""
        shares = boxes.new_tensor([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
        return cls(points=boxes[:, None, :2] + shares * (boxes[:, None, 2:] - boxes[:, None, :2]))


def within(prompts: Prompts, grid: Sequence[int], side: int) -> Tensor:
    """The share of each cell of a grid over `side` model pixels that lies in each place, float[R, rows * columns].

    A point stands for a square as large as a cell around it.
    """
    cell = torch.tensor([side / grid[1], side / grid[0]] * 2)
    if prompts.boxes is not None:
        boxes = prompts.boxes[:, None] / cell.to(prompts.boxes)
        return _overlap(boxes, grid).amax(1)
    assert prompts.points is not None
    middles = prompts.points / cell[:2].to(prompts.points)
    return _overlap(torch.cat([middles - 0.5, middles + 0.5], -1), grid).amax(1)


def _overlap(boxes: Tensor, grid: Sequence[int]) -> Tensor:
    """The share of each cell in boxes float[R, P, 4], xyxy in cells: float[R, P, rows * columns]."""
    along = []
    for axis, count in ((1, grid[0]), (0, grid[1])):
        first = torch.arange(count, device=boxes.device).to(boxes)
        far, near = boxes[..., axis + 2, None], boxes[..., axis, None]
        along.append((torch.minimum(far, first + 1) - torch.maximum(near, first)).clamp(0, 1))
    return (along[0][..., :, None] * along[1][..., None, :]).flatten(-2)


def embed(encoder: Any, prompts: Prompts) -> Tensor:
    """Prompts -> float[R, E, 256] by SAM's prompt encoder: a box as its corners and fillers, points as themselves and
    one that is none, which SAM puts behind points that come without a box; of 2 x 2 points E is 5, as released."""
    if prompts.boxes is not None:
        filler = encoder.no_mask_embed.weight.expand(len(prompts), FILLED - 2, -1)
        return torch.cat([corners(encoder, prompts.boxes), filler], dim=1)
    assert prompts.points is not None
    labels = torch.ones_like(prompts.points[..., 0], dtype=torch.long)
    sparse, _ = encoder(prompts.points[:, None], labels[:, None], None, None)
    return sparse[:, 0]  # type: ignore[no-any-return]


def corners(encoder: Any, boxes: Tensor) -> Tensor:
    """Boxes float[R, 4] -> their two corners float[R, 2, 256], as SAM's prompt encoder has them."""
    sparse, _ = encoder(None, None, boxes[:, None], None)
    return sparse[:, 0]  # type: ignore[no-any-return]


def places(encoder: Any, grid: Sequence[int]) -> Tensor:
    """Where the middles of the cells of a grid are float[rows * columns, 256], as SAM's prompt encoder says it."""
    table = encoder.shared_embedding.positional_embedding
    rows, columns = ((torch.arange(count, device=table.device) + 0.5) / count for count in grid)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return encoder.shared_embedding(torch.stack([x, y], dim=-1).flatten(0, 1).to(table))  # type: ignore[no-any-return]

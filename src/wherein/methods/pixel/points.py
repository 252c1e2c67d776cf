"""The point head: where a word is, from the language model's state behind it (PixelLLM, CVPR'24)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN_LAYERS = 3


class PointHead(nn.Module):
    """States float[..., D] -> points float[..., count, 2] in model pixels; kept in float32.

    A network says where in the picture, from -1 to 1 and beyond: nothing is cut off. The published one has two further
    values a point that nothing reads; they are left out.
    """

    def __init__(self, states: int, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        layers: list[nn.Module] = [nn.LayerNorm(states, eps=1e-6)]
        for i in range(HIDDEN_LAYERS):
            layers += [nn.Linear(width if i else states, width), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2 * count))

    def forward(self, states: Tensor, sizes: Tensor) -> Tensor:
        """`sizes` float[R, 2]: width and height of each row's picture inside the square, without the padding."""
        weight = next(self.parameters())
        said: Tensor = self.layers(states.to(weight)).view(*states.shape[:-1], self.count, 2)
        return (said + 1) / 2 * sizes.to(said).view(len(sizes), *[1] * (said.ndim - 2), 2)


def boxes_between(points: Tensor) -> Tensor:
    """Two points each, float[..., 2, 2] -> the boxes float[..., 4] between them, xyxy, whichever comes first."""
    return torch.cat([points.amin(-2), points.amax(-2)], dim=-1)


def corners_of(boxes: Tensor) -> Tensor:
    """Boxes float[..., 4] -> their two corners float[..., 2, 2]."""
    return boxes.reshape(*boxes.shape[:-1], 2, 2)

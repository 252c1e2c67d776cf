"""Masks: SAM's decoder on the box that a phrase was given, with what the phrase means added to the box's corners."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from wherein.geometry import Frame
from wherein.methods.pixel.prompts import corners, places
from wherein.methods.pixel.two_way import TwoWay


class MaskAdapter(nn.Module):
    """What visual tokens float[R, t, D] and states float[R, T, D] have to add to the corners of a box.

    It is multiplied by tanh(alpha), and alpha starts at 0: an untrained adapter leaves SAM as it is, bit for bit.
    """

    def __init__(self, width: int, prompt: int, depth: int) -> None:
        super().__init__()
        self.visual = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, prompt))
        self.text = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, prompt))
        self.tokens = nn.Parameter(torch.empty(2, prompt))
        self.transformer = TwoWay(prompt, depth)
        self.alpha = nn.Parameter(torch.empty(1))
        self.start()

    @torch.no_grad()
    def start(self) -> None:
        """The first values of what is no layer."""
        nn.init.normal_(self.tokens)
        nn.init.zeros_(self.alpha)

    def forward(self, visual: Tensor, states: Tensor, said: Tensor) -> Tensor:
        """float[R, 2, 256], for the two corners; `said` bool[R, T]: the states that are of the phrase."""
        cells = torch.cat([self.visual(visual), self.text(states)], dim=1)
        seen = torch.cat([said.new_ones(visual.shape[:2]), said], dim=1)
        tokens = self.tokens.expand(len(cells), -1, -1)
        out: Tensor = self.transformer(tokens, cells, torch.zeros_like(cells[:1, :1]), seen)
        return self.alpha.tanh() * out


def draw(
    prompt_encoder: Any, mask_decoder: Any, image: Tensor, boxes: Tensor, added: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One mask a box from SAM: logits float[R, 4h, 4w] over the square, and the IoU float[R] it expects of each.

    `image` float[R, C, h, w] is SAM's embedding of each box's picture, boxes float[R, 4] are in model pixels, `added`
    float[R, 2, 256] goes onto their corners.
    """
    box = corners(prompt_encoder, boxes)
    where = places(prompt_encoder, image.shape[-2:]).T.reshape(-1, *image.shape[-2:])
    dense = prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(image).to(image)
    masks, expected = mask_decoder(
        image_embeddings=image,
        image_positional_embeddings=where[None].expand_as(image).to(image),
        sparse_prompt_embeddings=(box if added is None else box + added)[:, None].to(image),
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return masks[:, 0, 0], expected[:, 0, 0]


def full_size(logits: Tensor, frame: Frame) -> NDArray[np.bool_]:
    """bool[H, W] on the image, from a mask's logits float[h, w] over the square that `frame` leads to."""
    square = F.interpolate(logits[None, None].float(), (frame.model_height, frame.model_width), mode="bilinear")
    width, height = round(frame.width * frame.scale_x), round(frame.height * frame.scale_y)
    picture = square[..., :height, :width]
    full = F.interpolate(picture, (frame.height, frame.width), mode="bilinear")
    return np.asarray((full[0, 0] > 0).cpu().numpy())

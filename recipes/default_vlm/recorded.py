"""A decoder in training on a GPU: its passes, there and back, are recorded once for each shape and replayed.

A step is some 20,000 small kernels, which no CPU launches as fast as a GPU runs them; replayed, they are launched as
two.
"""

from __future__ import annotations

import torch
from asked import Decode, Decoder
from torch import Tensor, nn

from wherein.vlm.default import DefaultVLM

FILLED = 32  # tokens: a row is filled up to a multiple of so many, and few shapes are recorded


class Recorded:
    """What Decoder gives, by replay. It lies where the next pass puts its own: go back through it before."""

    def __init__(self, vlm: DefaultVLM) -> None:
        self.vlm, self.pool = vlm, torch.cuda.graph_pool_handle()
        self.passes: dict[tuple[torch.Size, bool], Decode] = {}

    def __call__(self, x: Tensor, position: Tensor, mask: Tensor) -> Tensor:
        """See Decoder."""
        length, more = x.shape[1], -x.shape[1] % FILLED
        x, position = nn.functional.pad(x, (0, 0, 0, more)), nn.functional.pad(position, (0, more))
        mask = nn.functional.pad(mask, (0, more, 0, more), value=torch.finfo(mask.dtype).min)
        key = (x.shape, x.requires_grad)
        if key not in self.passes:
            sample = (x.detach().clone().requires_grad_(x.requires_grad), position.clone(), mask.clone())
            self.passes[key] = torch.cuda.make_graphed_callables(Decoder(self.vlm), sample, pool=self.pool)
        return self.passes[key](x, position, mask)[:, :length]

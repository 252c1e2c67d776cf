"""The connector of OpenFlamingo: a perceiver resampler, any number of patch features in, 64 latents out.

Each layer lets the latents attend to the patch features and to themselves, then passes them through a feed-forward
block. There is no position embedding in here: where a patch lies is known only from what the vision encoder, or an
insert behind it, wrote into its features. Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def feed_forward(width: int, expansion: int) -> nn.Sequential:
    """Norm, widen, GELU, narrow; the linear maps have no bias."""
    inner = width * expansion
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, inner, bias=False), nn.GELU(), nn.Linear(inner, width, bias=False)
    )


def split_heads(x: Tensor, heads: int) -> Tensor:
    """float[B, N, H * D] -> float[B, H, N, D]."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """float[B, H, N, D] -> float[B, N, H * D]."""
    return x.transpose(1, 2).flatten(2)


class PerceiverAttention(nn.Module):
    """Latents attend to patch features and to themselves; both sides are normed first."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_media = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """Features float[B, N, D_v] and latents float[B, L, D_v] -> what is added to the latents, float[B, L, D_v]."""
        latents = self.norm_latents(latents)
        source = torch.cat([self.norm_media(features), latents], dim=1)
        query = split_heads(self.to_q(latents), self.heads)
        key, value = (split_heads(x, self.heads) for x in self.to_kv(source).chunk(2, dim=-1))
        return self.to_out(join_heads(F.scaled_dot_product_attention(query, key, value)))  # type: ignore[no-any-return]


class PerceiverResampler(nn.Module):
    """Patch features float[B, N, D_v] of B images -> float[B, L, D_v]; the sizes are OpenFlamingo's."""

    def __init__(
        self, width: int, depth: int = 6, latents: int = 64, heads: int = 8, head_width: int = 64, expansion: int = 4
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(width, heads, head_width), feed_forward(width, expansion)])
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        """Patch features float[B, N, D_v] -> float[B, L, D_v]."""
        latents = self.latents.expand(features.shape[0], -1, -1)
        for layer in self.layers:
            attention, mlp = layer.children()  # a pair, as the checkpoints number it
            latents = latents + attention(features, latents)
            latents = latents + mlp(latents)
        return self.norm(latents)  # type: ignore[no-any-return]

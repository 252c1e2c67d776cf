"""A transformer between a few tokens and many cells, in both directions (the one of SAM's mask decoder, 2023).

Notable choices:
- cells can be masked, which the transformer of transformers' SAM cannot: texts of unequal length stand in one batch
- parameters have its names, so that its weights fit, and the tests hold both against each other
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

HEADS = 8
MLP = 2048
EPSILON = 1e-6


class Attention(nn.Module):
    """Attention of `width` in and out, and of `inner` between."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """float[R, Q, C], float[R, N, C] twice -> float[R, Q, C]; `mask` bool[R, N]: keys that may be looked at."""
        q, k, v = (
            project(x).view(*x.shape[:2], HEADS, -1).transpose(1, 2)
            for project, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        seen = None if mask is None else mask[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out_proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(width, MLP), nn.Linear(MLP, width)

    def forward(self, x: Tensor) -> Tensor:
        """float[..., C] -> float[..., C]."""
        return self.lin2(F.relu(self.lin1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Tokens among themselves, tokens to cells, an MLP, cells to tokens; `first`: tokens without a code of theirs."""

    def __init__(self, width: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(width, width)
        self.cross_attn_token_to_image = Attention(width, width // 2)
        self.cross_attn_image_to_token = Attention(width, width // 2)
        self.mlp = Mlp(width)
        self.layer_norm1, self.layer_norm2, self.layer_norm3, self.layer_norm4 = (
            nn.LayerNorm(width, eps=EPSILON) for _ in range(4)
        )

    def forward(
        self, tokens: Tensor, cells: Tensor, token_code: Tensor, cell_code: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Tokens float[R, Q, C] and cells float[R, N, C] with their codes -> both anew."""
        if self.first:
            tokens = self.layer_norm1(self.self_attn(tokens, tokens, tokens))
        else:
            coded = tokens + token_code
            tokens = self.layer_norm1(tokens + self.self_attn(coded, coded, tokens))
        key = cells + cell_code
        tokens = self.layer_norm2(tokens + self.cross_attn_token_to_image(tokens + token_code, key, cells, mask))
        tokens = self.layer_norm3(tokens + self.mlp(tokens))
        cells = self.layer_norm4(cells + self.cross_attn_image_to_token(key, tokens + token_code, tokens))
        return tokens, cells


class TwoWay(nn.Module):
    """`depth` blocks and a last look of the tokens at the cells, of width `last` inside (None: half of `width`)."""

    def __init__(self, width: int, depth: int, last: int | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(width, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(width, last or width // 2)
        self.layer_norm_final_attn = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, cells: Tensor, code: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens float[R, Q, C] that have looked at cells float[R, N, C], where `mask` bool[R, N] lets them.

        `code` float[R or 1, N, C] says where the cells are; the tokens, as they come, are their own code.
        """
        start = tokens
        for layer in self.layers:
            tokens, cells = layer(tokens, cells, start, code, mask)
        seen = self.final_attn_token_to_image(tokens + start, cells + code, cells, mask)
        return self.layer_norm_final_attn(tokens + seen)  # type: ignore[no-any-return]

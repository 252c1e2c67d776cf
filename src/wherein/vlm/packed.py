"""Attention over cached keys on a CPU, where query heads share keys: several times as fast.

Several tokens behind a cache come with a mask, and there transformers copies every key and value for each of the query
heads that share it. torch's kernel can do without, and gives the same numbers to the last bit.
It goes through the keys once for each query head all the same. For one new token, the heads that share keys can be the
rows of one query, so that each key is read once. transformers packs them so itself where there is a mask, and hands
the kernel unpacked heads where there is none. The numbers are then the same up to the last bit of a few; over a short
cache, where there is little to gain, the kernel is left alone, and so are they.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

NAME = "sdpa_packed"  # transformers checks for "sdpa" that a model supports the kernel
LONG = 512  # keys; an image and a question of the default model have some 230, with a worked example 450


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' attention interface: query float[B, H, Q, d], key, value float[B, G, K, d], H a multiple of G."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    kernel = nn.functional.scaled_dot_product_attention
    if query.shape[2] > 1 and attention_mask is not None:
        out = kernel(query, key, value, attention_mask, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2).contiguous(), None
    if query.shape[2] > 1 or attention_mask is not None or key.shape[2] < LONG:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **rest)
    batch, heads, _, width = query.shape
    rows = query.reshape(batch, key.shape[1], -1, width)
    out = kernel(rows, key, value, scale=scaling)
    return out.reshape(batch, 1, heads, width), None

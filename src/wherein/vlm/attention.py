"""The last token's attention, read beside the fused kernel: one row a head, never the whole matrix.

An attention function of our own, registered with transformers, runs the model's scaled-dot-product kernel untouched
and works the one row out again from the same query and keys. Models that transformers runs in eager mode only (a soft
cap on the logits) have their row read off the matrix that they build anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

NAME = "sdpa_last_row"  # transformers checks for "sdpa" that a model supports the kernel
Read = Callable[[Tensor, int], None]
_reader: ContextVar[tuple[dict[int, int], Read] | None] = ContextVar("last_row_reader", default=None)


@contextmanager
def last_row(
    decoder: Any, modules: Sequence[nn.Module], read: Callable[..., Any], layers: Sequence[int]
) -> Iterator[None]:
    """Call `read(row, layer)` with each row float32[B, H, K] that `modules[layer]` computes inside the block.

    `decoder` is the model whose attention is switched; rows carry a gradient where gradients are on.
    """
    before = decoder.config._attn_implementation
    if before == "eager":
        hooks = [  # the weights are the last of what an attention returns
            modules[i].register_forward_hook(lambda _, __, out, i=i: read(out[-1][:, :, -1].float(), i)) for i in layers
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        return
    _register()
    token = _reader.set(({id(modules[i]): i for i in layers}, read))
    decoder.set_attn_implementation(NAME)
    try:
        yield
    finally:
        decoder.set_attn_implementation(before)
        _reader.reset(token)


def row_of(
    query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None, bias: Tensor | None = None
) -> Tensor:
    """softmax(q_last K^T * scaling + bias + mask) of the last query: float32[B, H, K].

    query [B, H, Q, d], key [B, G, K, d] with H a multiple of G (grouped queries); mask bool (true: may look) or
    additive, broadcast to [B, H, Q, K]. The last query of a causal sequence looks at every key.
    """
    batch, heads, _, width = query.shape
    last = query[:, :, -1].reshape(batch, key.shape[1], -1, width)
    scores = torch.einsum("bgnd,bgkd->bgnk", last.float(), key.float()).reshape(batch, heads, -1)
    scores = scores * (width**-0.5 if scaling is None else scaling)
    if bias is not None:
        scores = scores + bias[:, :, -1].float()
    if mask is not None:
        own = mask[:, :, -1, : key.shape[2]]
        scores = scores.masked_fill(~own, float("-inf")) if own.dtype == torch.bool else scores + own.float()
    return scores.softmax(-1)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' attention interface: the model's own kernel, and the row on the side."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rest.pop("output_attentions", None)
    out = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **rest)
    wanted = _reader.get()
    if wanted is not None and (layer := wanted[0].get(id(module))) is not None:
        wanted[1](row_of(query, key, attention_mask, scaling, rest.get("position_bias")), layer)
    return out


def _register() -> None:
    """Make the function known to transformers, with the masks of sdpa: without those it would see no padding at all."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])

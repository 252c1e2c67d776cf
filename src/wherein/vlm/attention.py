"""The last token's attention, read beside the fused kernel: one row a head, never the whole matrix.

An attention function of our own, registered with transformers, runs the model's scaled-dot-product kernel untouched
and works the one row out again from the same query and keys. Models that transformers runs in eager mode only (a soft
cap on the logits) have their row read off the matrix that they build anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

NAME = "sdpa_last_row"  # transformers checks for "sdpa" that a model supports the kernel
Read = Callable[[Any, int], Any]
Readers = tuple[tuple[dict[int, int], Read], ...]  # who reads which modules, by id, under which number; the outer first
_readers: ContextVar[Readers] = ContextVar("last_row_readers", default=())
_ends: ContextVar[Tensor | None] = ContextVar("last_row_ends", default=None)


@contextmanager
def last_row(
    decoder: Any, modules: Sequence[nn.Module], read: Callable[..., Any], layers: Sequence[int]
) -> Iterator[None]:
    """Call `read(row, layer)` with each row float32[B, H, K] that `modules[layer]` computes inside the block.

    `decoder` is the model whose attention is switched, None where the modules call `attend` themselves; rows carry a
    gradient where gradients are on.
    """
    if decoder is None:
        with _reading(modules, read, layers):
            yield
        return
    before = decoder.config._attn_implementation
    if before == "eager":
        hooks = [  # the weights are the last of what an attention returns
            modules[i].register_forward_hook(lambda _, __, out, i=i: read(_at(out[-1], _ends.get()).float(), i))
            for i in layers
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        return
    register(NAME, _attend)
    _switch(decoder, NAME)
    try:
        with _reading(modules, read, layers):
            yield
    finally:
        _switch(decoder, before)


@contextmanager
def ends(at: Tensor) -> Iterator[None]:
    """In what runs inside the block, token at[b] of row b is its last: int64[B]; what stands behind it is padding."""
    token = _ends.set(at)
    try:
        yield
    finally:
        _ends.reset(token)


def _switch(decoder: Any, name: str) -> None:
    """Another attention function; transformers warns of configurations in it that belong to models elsewhere."""
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        decoder.set_attn_implementation(name)
    finally:
        logger.setLevel(level)


def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of a module of our own, float[B, H, Q, d]: torch's kernel, and the row on the side.

    query float[B, H, Q, d], key and value float[B, H, K, d], mask bool (true: may look) broadcast to [B, H, Q, K].
    """
    _tell(module, lambda: row_of(query, key, mask, None, at=_ends.get()))
    return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


@contextmanager
def _reading(modules: Sequence[nn.Module], read: Read, layers: Sequence[int]) -> Iterator[None]:
    """Who reads which modules, for what runs in this thread inside the block."""
    token = _readers.set((*_readers.get(), ({id(modules[i]): i for i in layers}, read)))
    try:
        yield
    finally:
        _readers.reset(token)


def _tell(module: nn.Module, row: Callable[[], Tensor]) -> None:
    """Work the row out if somebody reads this module."""
    wanted = [(read, layers[id(module)]) for layers, read in _readers.get() if id(module) in layers]
    found = row() if wanted else None
    for read, layer in wanted:
        read(found, layer)


def row_of(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    bias: Tensor | None = None,
    at: Tensor | None = None,
) -> Tensor:
    """softmax(q_last K^T * scaling + bias + mask) of the last query: float32[B, H, K].

    query [B, H, Q, d], key [B, G, K, d] with H a multiple of G (grouped queries); mask bool (true: may look) or
    additive, broadcast to [B, H, Q, K]. `at` int64[B]: which query is the last, where others behind it are padding; a
    mask hides these from it. The last query of a causal sequence looks at every key.
    """
    batch, heads, _, width = query.shape
    last = _at(query, at).reshape(batch, key.shape[1], -1, width)
    scores = torch.einsum("bgnd,bgkd->bgnk", last.float(), key.float()).reshape(batch, heads, -1)
    scores = scores * (width**-0.5 if scaling is None else scaling)
    if bias is not None:
        scores = scores + _at(bias, at).float()
    if mask is not None:
        own = _at(mask, at)[..., : key.shape[2]]
        scores = scores.masked_fill(~own, float("-inf")) if own.dtype == torch.bool else scores + own.float()
    return scores.softmax(-1)


def _at(x: Tensor, at: Tensor | None) -> Tensor:
    """The last query's part [B, H, *] of x [B, H, Q, *]."""
    if at is None or x.shape[2] == 1:
        return x[:, :, -1]
    return x.expand(len(at), -1, -1, -1)[torch.arange(len(at), device=x.device), :, at.to(x.device)]


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
    length = query.shape[2]
    told = rest.get("is_causal")
    causal = getattr(module, "is_causal", True) if told is None else told
    # Without a mask the kernel of several queries is causal, which is also how it passes over a static cache's end.
    seen = key[:, :, :length] if attention_mask is None and causal and length > 1 else key
    _tell(module, lambda: row_of(query, seen, attention_mask, scaling, rest.get("position_bias"), _ends.get()))
    return out


def register(name: str, function: Callable[..., tuple[Tensor, Tensor | None]]) -> None:
    """Make an attention function known to transformers, with sdpa's masks: without them it would see no padding."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])

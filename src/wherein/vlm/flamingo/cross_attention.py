"""Gated cross-attention from text to images, and the wrapper that puts it before a language model's own block.

A text token attends to the latents of one image only: the last whose <image> token stands at or before it. Text before
the first image attends to nothing. Both branches are scaled by the tanh of a learned gate, so at a gate of zero the
language model is exactly what it was. What a forward pass sees travels beside the language model, in a context
variable, because transformers' models hand their blocks only what they know of themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wherein.vlm.attention import attend
from wherein.vlm.flamingo.resampler import feed_forward, join_heads, split_heads


@dataclass(frozen=True)
class Conditioning:
    """What the blocks of one forward pass see beside the text.

    media float[B, M, D_v]: the latents of all images of a row, one image after the other; None without images ·
    visible bool[B, S, M]: which of them a token attends to; None where every token attends to all ·
    position_bias float[B or 1, H, S, K]: mask and ALiBi bias of a language model that needs them from here.
    """

    media: Tensor | None = None
    visible: Tensor | None = None
    position_bias: Tensor | None = None


_CONDITIONING: ContextVar[Conditioning] = ContextVar("conditioning", default=Conditioning())  # noqa: B039 - frozen


@contextmanager
def conditioned(conditioning: Conditioning) -> Iterator[None]:
    """Every `FlamingoLayer` that runs inside the block, in this thread, sees `conditioning`."""
    token = _CONDITIONING.set(conditioning)
    try:
        yield
    finally:
        _CONDITIONING.reset(token)


def attended_media(
    embeddings: Tensor | None, locations: Tensor | None, past: int, length: int
) -> tuple[Tensor | None, Tensor | None]:
    """Latents float[B, M, D_v] of all images of a row, and bool[B, S, M]: which of them each token attends to.

    See `FlamingoDecoder.forward` for the arguments. Raises ValueError for a prompt with an <image> that has no image.
    """
    if embeddings is None:
        return None, None
    if embeddings.ndim == 3:
        embeddings = embeddings[:, None]
    images, latents = embeddings.shape[1:3]
    if locations is None:
        return embeddings[:, -1], None
    if locations.shape[1] not in (length, past + length):
        raise ValueError(f"media_locations cover {locations.shape[1]} tokens, not {length} or {past + length}")
    time = locations.long().cumsum(dim=1)
    if past and locations.shape[1] == length:
        time = time + images - time[:, -1:]
    elif not past and int(time.max()) > images:
        raise ValueError(f"a row has {int(time.max())} <image> tokens and {images} images")
    number = torch.arange(1, images + 1, device=time.device).repeat_interleave(latents)
    return embeddings.flatten(1, 2), time[:, -length:, None] == number


class MediaCrossAttention(nn.Module):
    """Text attends to the latents of images."""

    def __init__(self, width: int, media_width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * head_width, bias=False)
        self.to_kv = nn.Linear(media_width, 2 * heads * head_width, bias=False)
        self.to_out = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, text: Tensor, media: Tensor, visible: Tensor | None) -> Tensor:
        """Text float[B, S, D], media float[B, M, D_v], visible bool[B, S, M] -> float[B, S, D], zero where none is."""
        query = split_heads(self.to_q(self.norm(text)), self.heads)
        key, value = (split_heads(x, self.heads) for x in self.to_kv(media).chunk(2, dim=-1))
        if visible is None:
            out = attend(self, query, key, value, None)
        else:
            seeing = visible.any(dim=-1, keepdim=True)
            mask = visible | ~seeing  # a softmax over nothing is NaN: such a token looks at all, and it is zeroed after
            out = attend(self, query, key, value, mask[:, None]) * seeing[:, None]
        return self.to_out(join_heads(out))  # type: ignore[no-any-return]


class GatedCrossAttentionBlock(nn.Module):
    """Cross-attention and a feed-forward block, each added through its gate; the sizes are OpenFlamingo's."""

    def __init__(self, width: int, media_width: int, heads: int = 8, head_width: int = 64, expansion: int = 4) -> None:
        super().__init__()
        self.attn = MediaCrossAttention(width, media_width, heads, head_width)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.ff = feed_forward(width, expansion)
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(self, text: Tensor, media: Tensor | None, visible: Tensor | None) -> Tensor:
        """Text float[B, S, D] -> float[B, S, D]; the feed-forward branch runs for tokens without an image, too."""
        if media is not None:
            text = text + self.attn(text, media, visible) * self.attn_gate.tanh()
        return text + self.ff(text) * self.ff_gate.tanh()  # type: ignore[no-any-return]


class FlamingoLayer(nn.Module):
    """A language model's own block with, where it has one, gated cross-attention before it."""

    def __init__(self, decoder_layer: nn.Module, gated_cross_attn_layer: GatedCrossAttentionBlock | None) -> None:
        super().__init__()
        self.gated_cross_attn_layer = gated_cross_attn_layer
        self.decoder_layer = decoder_layer

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Any:
        """Hidden states float[B, S, D] and the block's own arguments -> what the block returns."""
        conditioning = _CONDITIONING.get()
        if self.gated_cross_attn_layer is not None:
            hidden_states = self.gated_cross_attn_layer(hidden_states, conditioning.media, conditioning.visible)
        if conditioning.position_bias is not None:
            kwargs["position_bias"] = conditioning.position_bias
        return self.decoder_layer(hidden_states, **kwargs)

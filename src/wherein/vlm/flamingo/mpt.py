"""MPT-1B, the language model of OpenFlamingo-3B, and the ALiBi attention that it shares with MPT-7B.

The architecture is the one published as "mosaic_gpt": pre-norm blocks without any bias, ALiBi in place of position
embeddings, queries and keys normed over their full width before they are split into heads, exact GELU, and output
embeddings tied to the input embeddings. Parameter names are those of `mpt-1b-redpajama-200b`.

ALiBi is computed from the tokens' positions, not from their places in the sequence, so padding anywhere in a row and
packed branches do not shift it; and relative to the query, so that half precision keeps the near distances exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.mpt.modeling_mpt import MptAttention

from wherein.errors import InputError
from wherein.vlm.flamingo.resampler import join_heads, split_heads

# What this implementation takes for granted of a published config.json.
_ASSUMED = {
    "alibi": True,
    "alibi_bias_max": 8,
    "attn_qk_ln": True,
    "no_bias": True,
    "attn_clip_qkv": None,
    "softmax_scale": None,
    "logit_scale": None,
}
_ALIBI_BIAS_MAX = 8


@dataclass(frozen=True)
class MosaicGptConfig:
    """The sizes of a mosaic_gpt model; the defaults are MPT-1B's."""

    vocab_size: int = 50432
    width: int = 2048
    num_attention_heads: int = 16
    layers: int = 24
    expansion: int = 4

    @classmethod
    def parse(cls, published: Mapping[str, Any]) -> MosaicGptConfig:
        """Read a published config.json. Raises InputError if it asks for what this implementation does not do."""
        for name, value in _ASSUMED.items():
            if published.get(name) != value:
                raise InputError(f"A mosaic_gpt language model needs {name}={value}, not {published.get(name)!r}.")
        sizes = [published.get(name) for name in ("vocab_size", "d_model", "n_heads", "n_layers", "mlp_ratio")]
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise InputError("The config.json of a mosaic_gpt language model needs its sizes as positive integers.")
        return cls(*sizes)  # type: ignore[arg-type]  # checked just above


def visible_keys(mask: Tensor | None, past: int, length: int, device: torch.device) -> Tensor:
    """bool[B or 1, 1, S, P + S]: which key each of the S queries may look at."""
    if mask is not None and mask.shape[-1] != past + length:
        raise ValueError(f"the attention mask covers {mask.shape[-1]} tokens, not {past} cached and {length} new ones")
    if mask is not None and mask.ndim == 4:
        return mask if mask.dtype == torch.bool else mask >= 0
    key = torch.arange(past + length, device=device)
    causal = (key <= key[past:, None])[None, None]
    return causal if mask is None else causal & mask[:, None, None].bool()


def key_positions(mask: Tensor | None, visible: Tensor, position_ids: Tensor | None, past: int) -> Tensor:
    """Positions of all keys, int64[B or 1, P + S]: padding does not count, and `position_ids` hold for the last S."""
    filled = mask if mask is not None and mask.ndim == 2 else visible.any(dim=2)[:, 0]  # a key nobody sees is padding
    positions = (filled.long().cumsum(dim=1) - 1).clamp(min=0)
    if position_ids is None:
        return positions
    return torch.cat([positions[:, :past].expand(position_ids.shape[0], -1), position_ids], dim=1)


def alibi_bias(positions: Tensor, visible: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """The additive attention mask of an ALiBi model, float[B or 1, H, Q, K].

    positions int64[B or 1, K]: of all keys, the last Q of which are the queries · visible bool[B or 1, 1, Q, K]. Head h
    of H pays 2**(-8 h / H) a token of distance. Raises ValueError unless H is a power of two.
    """
    if heads & (heads - 1):
        raise ValueError(f"ALiBi is implemented for a power of two of heads, not for {heads}")
    number = torch.arange(1, heads + 1, dtype=torch.float32, device=positions.device)
    slopes = torch.exp2(-number * (_ALIBI_BIAS_MAX / heads))
    distance = positions[:, None, :] - positions[:, -visible.shape[2] :, None]
    bias = (slopes[:, None, None] * distance[:, None]).to(dtype)
    return bias.masked_fill(~visible, torch.finfo(dtype).min)


class AlibiAttention(nn.Module):
    """Self-attention under a given mask and bias; it takes the place of transformers' attention in an MPT block."""

    def __init__(self, width: int, heads: int, layer: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.layer = layer
        self.Wqkv = nn.Linear(width, 3 * width, bias=False)
        self.q_ln = nn.LayerNorm(width, bias=False) if qk_norm else None
        self.k_ln = nn.LayerNorm(width, bias=False) if qk_norm else None
        self.out_proj = nn.Linear(width, width, bias=False)

    @classmethod
    def replacing(cls, attention: MptAttention) -> AlibiAttention:
        """An attention with the very parameters of transformers' own, which knows no positions."""
        if attention.clip_qkv is not None or not math.isclose(attention.softmax_scale or 0.0, attention.head_dim**-0.5):
            raise InputError("An MPT language model with clip_qkv or a softmax_scale of its own is not supported.")
        with torch.device("meta"):
            own = cls(attention.hidden_size, attention.n_heads, int(attention.layer_idx or 0), qk_norm=False)
        own.Wqkv, own.out_proj = attention.Wqkv, attention.out_proj
        return own

    def forward(
        self, hidden_states: Tensor, position_bias: Tensor, past_key_values: Cache | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        """float[B, Q, D] and the bias float[B or 1, H, Q, K] -> (float[B, Q, D], None), as transformers expects it."""
        query, key, value = self.Wqkv(hidden_states).chunk(3, dim=-1)
        if self.q_ln is not None and self.k_ln is not None:
            query, key = self.q_ln(query), self.k_ln(key)
        query, key, value = (split_heads(x, self.heads) for x in (query, key, value))
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=position_bias)
        return self.out_proj(join_heads(out)), None


class _Mlp(nn.Module):
    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.mlp_up = nn.Linear(width, expansion * width, bias=False)
        self.mlp_down = nn.Linear(expansion * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """float[B, Q, D] -> float[B, Q, D]."""
        return self.mlp_down(F.gelu(self.mlp_up(x)))  # type: ignore[no-any-return]


class MosaicGptBlock(nn.Module):
    """Norm, attention, add; norm, feed-forward, add."""

    def __init__(self, config: MosaicGptConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, bias=False)
        self.attn = AlibiAttention(config.width, config.num_attention_heads, layer, qk_norm=True)
        self.ln_2 = nn.LayerNorm(config.width, bias=False)
        self.mlp = _Mlp(config.width, config.expansion)

    def forward(
        self, hidden_states: Tensor, position_bias: Tensor, layer_past: Cache | None = None, **_: Any
    ) -> Tensor:
        """float[B, Q, D] -> float[B, Q, D]."""
        hidden_states = hidden_states + self.attn(self.ln_1(hidden_states), position_bias, layer_past)[0]
        return hidden_states + self.mlp(self.ln_2(hidden_states))  # type: ignore[no-any-return]


class _Transformer(nn.Module):
    """Called as transformers' `MptModel` is; its blocks, too, take their bias from what wraps them."""

    def __init__(self, config: MosaicGptConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(MosaicGptBlock(config, layer) for layer in range(config.layers))
        self.ln_f = nn.LayerNorm(config.width, bias=False)

    def forward(
        self, inputs_embeds: Tensor, past_key_values: Cache | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPast:
        """inputs_embeds float[B, Q, D] -> `last_hidden_state` float[B, Q, D] behind the last norm, and the cache."""
        hidden = inputs_embeds
        for block in self.blocks:
            hidden = block(hidden, layer_past=past_key_values, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=self.ln_f(hidden), past_key_values=past_key_values)


class MosaicGpt(nn.Module):
    """MPT-1B with its tied output embeddings, `lm_head`."""

    def __init__(self, config: MosaicGptConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = _Transformer(config)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Make the output embeddings the input embeddings again, after those were replaced."""
        self.lm_head.weight = self.transformer.wte.weight
        self.lm_head.out_features = self.transformer.wte.num_embeddings

    def get_input_embeddings(self) -> nn.Embedding:
        """The input embeddings."""
        return self.transformer.wte

    def get_output_embeddings(self) -> nn.Linear:
        """The output embeddings."""
        return self.lm_head

"""OpenFlamingo with the interface of a vision-language model of transformers.

Notable choices:
- The perceiver receives the patch tokens of CLIP's last layer, without the class token and without CLIP's last norm:
  so open_clip gave them when the published checkpoints were trained (later versions of it norm them).
- A prompt can be run once with a cache and continued in chunks. Nothing but keys and values is kept in that cache:
  whoever continues passes the images' latents again, and the mask of the whole row, as for any model of transformers.
- Positions follow the mask, for rotary embeddings and for ALiBi alike, so padding may lie anywhere in a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, CLIPVisionModel, DynamicCache, GPTNeoXForCausalLM, MptForCausalLM
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.mpt.modeling_mpt import MptBlock

from wherein.errors import InputError
from wherein.vlm.flamingo.cross_attention import (
    Conditioning,
    FlamingoLayer,
    GatedCrossAttentionBlock,
    attended_media,
    conditioned,
)
from wherein.vlm.flamingo.mpt import AlibiAttention, MosaicGpt, alibi_bias, key_positions, visible_keys
from wherein.vlm.flamingo.resampler import PerceiverResampler

LanguageModel = MosaicGpt | MptForCausalLM | GPTNeoXForCausalLM


@dataclass(frozen=True)
class FlamingoOutput:
    """logits float[B, S', V] · last_hidden_state float[B, S, D], before the output embeddings · the cache, if any ·
    perceiver_embeddings float[B, T, L, D_v], to be passed again with what continues."""

    logits: Tensor
    last_hidden_state: Tensor
    past_key_values: Cache | None
    perceiver_embeddings: Tensor | None


class FlamingoDecoder(nn.Module):
    """The language model with gated cross-attention before every n-th of its blocks, up to its last norm."""

    def __init__(self, language_model: LanguageModel, media_width: int, every: int, media_token_id: int) -> None:
        super().__init__()
        self.language_model = language_model
        self.media_token_id = media_token_id
        embedding: nn.Embedding = language_model.get_input_embeddings()  # type: ignore[assignment]
        width = embedding.embedding_dim
        for i, block in enumerate(self.blocks):
            if isinstance(block, MptBlock):
                block.attn = AlibiAttention.replacing(block.attn)  # type: ignore[assignment]
            gated = GatedCrossAttentionBlock(width, media_width) if (i + 1) % every == 0 else None
            self.blocks[i] = FlamingoLayer(block, gated)

    @property
    def blocks(self) -> nn.ModuleList:
        """The language model's blocks, each a `FlamingoLayer`."""
        blocks: nn.ModuleList = self.language_model.get_submodule(self.blocks_name)  # type: ignore[assignment]
        return blocks

    @property
    def blocks_name(self) -> str:
        """Where the blocks are in the language model, and in the names of a published checkpoint."""
        return "gpt_neox.layers" if isinstance(self.language_model, GPTNeoXForCausalLM) else "transformer.blocks"

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        perceiver_embeddings: Tensor | None = None,
        media_locations: Tensor | None = None,
    ) -> BaseModelOutputWithPast:
        """Run S tokens behind P cached ones; `last_hidden_state` is what the output embeddings expect.

        input_ids int64[B, S] or inputs_embeds float[B, S, D] · attention_mask: [B, P + S], zero at padding, or
        [B, 1, S, P + S], boolean or additive · position_ids int64[B, S]: from the mask if not given ·
        perceiver_embeddings float[B, L, D_v] of one image a row, or float[B, T, L, D_v] of T ·
        media_locations bool[B, S] or bool[B, P + S]: where an <image> token stands; from input_ids if not given.

        A token attends to the image of the last <image> at or before it. Where only S of P + S tokens are known, the
        images of the row end with those in the S; where embeddings come without locations, all attend to the last one.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if media_locations is None and input_ids is not None:
            media_locations = input_ids == self.media_token_id
        if inputs_embeds is None:
            inputs_embeds = self.language_model.get_input_embeddings()(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        length = inputs_embeds.shape[1]
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        visible = visible_keys(attention_mask, past, length, inputs_embeds.device)
        positions = key_positions(attention_mask, visible, position_ids, past)
        media, seen = attended_media(perceiver_embeddings, media_locations, past, length)
        common: dict[str, Any] = {"inputs_embeds": inputs_embeds, "past_key_values": past_key_values}
        common["use_cache"] = past_key_values is not None
        if isinstance(self.language_model, GPTNeoXForCausalLM):
            mask = _additive(attention_mask, visible, inputs_embeds.dtype)
            with conditioned(Conditioning(media, seen)):
                out = self.language_model.gpt_neox(attention_mask=mask, position_ids=positions[:, past:], **common)
        else:
            heads = self.language_model.config.num_attention_heads
            bias = alibi_bias(positions, visible, heads, inputs_embeds.dtype)
            with conditioned(Conditioning(media, seen, bias)):
                out = self.language_model.transformer(**common)
        return BaseModelOutputWithPast(last_hidden_state=out.last_hidden_state, past_key_values=past_key_values)


class OpenFlamingo(nn.Module):
    """CLIP, perceiver and decoder; `unused_keys` are the names in the checkpoint that only repeat frozen weights."""

    unused_keys: tuple[str, ...] = ()

    def __init__(
        self,
        vision_model: CLIPVisionModel,
        language_model: LanguageModel,
        cross_attn_every_n_layers: int,
        media_token_id: int,
    ) -> None:
        super().__init__()
        self.vision_model = vision_model
        self.perceiver = PerceiverResampler(vision_model.config.hidden_size)
        self.decoder = FlamingoDecoder(
            language_model, vision_model.config.hidden_size, cross_attn_every_n_layers, media_token_id
        )

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return self.get_input_embeddings().weight.dtype

    def get_input_embeddings(self) -> nn.Embedding:
        """The language model's input embeddings, those of <|endofchunk|> and <image> among them."""
        return self.decoder.language_model.get_input_embeddings()  # type: ignore[return-value]

    def get_output_embeddings(self) -> nn.Linear:
        """The language model's output embeddings."""
        return self.decoder.language_model.get_output_embeddings()

    def get_decoder(self) -> FlamingoDecoder:
        """The language model without its output embeddings."""
        return self.decoder

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Pixels float[B, 3, H, W] -> patch features float[B, N, D_v] in raster order, as the perceiver receives them.

        H and W are those the vision model was trained at, or those of `interpolate_positions`.
        """
        return self.vision_model(pixel_values.to(self.device, self.dtype)).last_hidden_state[:, 1:]  # type: ignore[no-any-return]

    def interpolate_positions(self, size: int) -> None:
        """Make the vision model take square images of `size` pixels: bicubic patch positions, class position as it was.

        Raises InputError if patches do not tile such an image.
        """
        embeddings = self.vision_model.embeddings
        old = embeddings.position_embedding.weight
        patch = int(embeddings.patch_embedding.weight.shape[-1])
        if size <= 0 or size % patch:
            raise InputError(f"The image size must be a multiple of {patch} pixels, not {size}.")
        side, now = size // patch, math.isqrt(len(old) - 1)
        grid = old[1:].detach().float().reshape(1, now, now, -1).permute(0, 3, 1, 2)
        grid = nn.functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        table = torch.cat([old[:1].detach(), grid.flatten(2).transpose(1, 2)[0].to(old.dtype)])
        embeddings.position_embedding.weight = nn.Parameter(table, requires_grad=old.requires_grad)
        embeddings.position_embedding.num_embeddings = len(table)
        embeddings.register_buffer("position_ids", torch.arange(len(table), device=old.device)[None], persistent=False)
        embeddings.num_patches, embeddings.num_positions = side * side, len(table)
        embeddings.image_size = self.vision_model.config.image_size = size

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        perceiver_embeddings: Tensor | None = None,
        media_locations: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
    ) -> FlamingoOutput:
        """As `FlamingoDecoder.forward`, with logits of the last `logits_to_keep` tokens, 0 for all.

        Images come as pixel_values float[B, 3, H, W] or float[B, T, 3, H, W], or as what the perceiver made of them.
        """
        if pixel_values is not None:
            images = pixel_values[:, None] if pixel_values.ndim == 4 else pixel_values
            latents = self.perceiver(self.image_features(images.flatten(0, 1)))
            perceiver_embeddings = latents.unflatten(0, images.shape[:2])
        out = self.decoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            perceiver_embeddings=perceiver_embeddings,
            media_locations=media_locations,
        )
        hidden = out.last_hidden_state
        logits = self.get_output_embeddings()(hidden[:, -logits_to_keep:])
        return FlamingoOutput(logits, hidden, out.past_key_values, perceiver_embeddings)


def _additive(mask: Tensor | None, visible: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The mask as transformers takes it under any attention: it leaves a mask of four dimensions as it is."""
    if mask is None or mask.ndim == 2:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~visible, torch.finfo(dtype).min)

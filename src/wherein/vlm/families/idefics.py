"""Idefics: the first with cross-attention to latents, the third (and SmolVLM) with tiles and a pixel shuffle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wherein.vlm import views
from wherein.vlm.hf import HFVLM, QUESTION
from wherein.vlm.mixing import Mixer
from wherein.vlm.seams import Seams


class Idefics(HFVLM):
    """Idefics v1, an open Flamingo: a perceiver's latents, read by gated cross-attention between the blocks."""

    family = "idefics"
    model_types = ("idefics",)
    model_class = "IdeficsForVisionText2Text"
    processor_class = "IdeficsProcessor"
    views = staticmethod(views.squash)
    connector_path = "model.perceiver_resampler"
    blocks_path = "model.vision_model.encoder.layers"
    patches_path = "model.vision_model.embeddings"
    width_key = "embed_dim"
    leading = 1
    latents = True
    lead = QUESTION
    checkpoint = "HuggingFaceM4/idefics-9b"
    licence = "MIT (weights: Llama, non-commercial)"

    @property
    def token_dim(self) -> int:
        """The latents are as wide as the features: keys of a cross-attention, not words."""
        return self.feature_dim

    def call(self, text: str, image: Image.Image) -> Mapping[str, Any]:
        """A prompt is a list of images and texts."""
        return self.processor(images=[image], text=[text], return_tensors="pt")  # type: ignore[no-any-return]

    def follow(self, out: Any) -> tuple[Any, dict[str, Tensor], bool]:
        """All text behind the image goes on looking at its latents."""

        def decoder(input_ids: Tensor, **rest: Any) -> Any:
            """The model's body, told that every token may see the image."""
            seen = torch.ones(*input_ids.shape, 1, dtype=torch.long, device=input_ids.device)
            return self.model.model(input_ids=input_ids, image_attention_mask=seen, **rest)

        latents = out.image_hidden_states
        return decoder, {"perceiver_embeddings": latents}, True

    def latent_positions(self) -> NDArray[np.int64]:
        """The gated cross-attention has no other keys."""
        return np.arange(len(self.connector.latents))

    def mixers(self) -> list[Mixer]:
        """The resampler's: patches first, then the latents themselves."""
        attentions = [block[0] for block in self.connector.blocks]
        if self.connector.qk_layer_norms:
            return [Mixer(each.q_layer_norm, each.k_layer_norm, each.n_heads, "both") for each in attentions]
        return [Mixer(each.q_proj, each.k_proj, each.n_heads, "both") for each in attentions]

    def _seams(self) -> Seams:
        body = self.model.model
        return Seams(
            self.connector,
            None,
            None,
            self.model.get_submodule(self.patches_path),
            self.model.get_input_embeddings(),
            body.layers,
            [block.cross_attn for block in body.gated_cross_attn_layers],
            body,
        )


class Idefics3(HFVLM):
    """Idefics3: tiles, then the whole image; a pixel shuffle makes one token of a block of patches."""

    family = "idefics3"
    model_types = ("idefics3",)
    model_class = "Idefics3ForConditionalGeneration"
    processor_class = "Idefics3Processor"
    views = staticmethod(views.split)
    connector_path = "model.connector"
    blocks_path = "model.vision_model.encoder.layers"
    patches_path = "model.vision_model.embeddings"
    lead = f"User:<image>{QUESTION}<end_of_utterance>\nAssistant:"
    checkpoint = "HuggingFaceM4/Idefics3-8B-Llama3"
    licence = "Apache-2.0"

    def token(self) -> int:
        """A token stands for a block of patches."""
        return self.patch() * int(self.model.config.scale_factor)


class SmolVLM(Idefics3):
    """SmolVLM: the same, small. Its own processor differs for video only, and needs a package to spell numbers."""

    family = "smolvlm"
    model_types = ("smolvlm",)
    model_class = "SmolVLMForConditionalGeneration"
    checkpoint = "HuggingFaceTB/SmolVLM-Instruct"

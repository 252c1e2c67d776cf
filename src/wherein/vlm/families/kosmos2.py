"""Kosmos-2: 64 latent queries between a CLIP encoder and a decoder that writes boxes of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wherein.vlm import views
from wherein.vlm.hf import HFVLM, TRAINED_AT
from wherein.vlm.mixing import Mixer


class Kosmos2(HFVLM):
    """Kosmos-2. x_v has CLS first, behind the encoder's last norm."""

    family = "kosmos2"
    model_types = ("kosmos-2",)
    model_class = "Kosmos2ForConditionalGeneration"
    processor_class = "Kosmos2Processor"
    views = staticmethod(views.centre_crop)
    connector_path = "image_to_text_projection"
    blocks_path = "vision_model.model.encoder.layers"
    patches_path = "vision_model.model.embeddings"
    leading = 1
    latents = True
    lead = ""
    native = "<patch_index_XXXX> of a 32 x 32 grid, corner by corner"
    native_prompt = "<grounding><phrase>{phrase}</phrase>"
    checkpoint = "microsoft/kosmos-2-patch14-224"
    licence = "MIT"

    def decoder(self) -> Any:
        """The text model's stack."""
        return self.model.text_model.model

    def latent_positions(self) -> NDArray[np.int64]:
        """Its text model puts them in by itself, where its processor says."""
        inputs = self._processed(TRAINED_AT, TRAINED_AT)
        return np.asarray(inputs["image_embeds_position_mask"][0].nonzero().flatten())

    def mixers(self) -> list[Mixer]:
        """One attention: patches first, then the latents themselves."""
        attention = self.connector.x_attn
        return [Mixer(attention.q_proj, attention.k_proj, attention.num_heads, "both")]

    def first_position(self) -> int:
        """Its table of positions begins behind the padding's."""
        return int(self.model.config.text_config.pad_token_id) + 1

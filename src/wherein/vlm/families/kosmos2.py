"""Kosmos-2: 64 latent queries between a CLIP encoder and a decoder that writes boxes of its own."""

from __future__ import annotations

from typing import Any

from wherein.vlm import views
from wherein.vlm.hf import HFVLM


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
    checkpoint = "microsoft/kosmos-2-patch14-224"
    licence = "MIT"

    def decoder(self) -> Any:
        """The text model's stack."""
        return self.model.text_model.model

    def first_position(self) -> int:
        """Its table of positions begins behind the padding's."""
        return int(self.model.config.text_config.pad_token_id) + 1

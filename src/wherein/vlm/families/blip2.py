"""BLIP-2 and InstructBLIP: a Q-Former's latent queries stand for the image; OPT, Llama or Flan-T5 behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image
from torch import Tensor

from wherein.errors import InputError
from wherein.vlm import views
from wherein.vlm.hf import HFVLM, QUESTION
from wherein.vlm.mixing import Mixer, Sees
from wherein.vlm.seams import Seams


class Blip2(HFVLM):
    """BLIP-2. x_v has CLS first, behind the encoder's last norm, as PIN was published on it: 257 rows at 224 px."""

    family = "blip2"
    model_types = ("blip-2",)
    model_class = "Blip2ForConditionalGeneration"
    processor_class = "Blip2Processor"
    views = staticmethod(views.squash)
    connector_path = "qformer"
    argument = "encoder_hidden_states"
    projection_path = "language_projection"
    blocks_path = "vision_model.encoder.layers"
    patches_path = "vision_model.embeddings"
    leading = 1
    latents = True
    checkpoint = "Salesforce/blip2-opt-2.7b"
    licence = "MIT (weights: OPT, non-commercial)"

    def resize(self, size: int) -> None:
        """transformers interpolates the position embeddings itself, when it is asked to."""
        if size % self.patch():
            raise InputError(f"The image size must be a multiple of {self.patch()} pixels, not {size}.")
        images = self.processor.image_processor
        images.size = type(images.size)(height=size, width=size)
        self._further = {"interpolate_pos_encoding": True}

    def decoder(self) -> Any:
        """OPT's or Llama's stack, or T5's decoder."""
        if self.model.config.is_encoder_decoder:
            return self.model.language_model.get_decoder()
        return super().decoder()

    def follow(self, out: Any) -> tuple[Any, dict[str, Tensor], bool]:
        """T5 needs what its encoder made of the image, and counts positions by itself."""
        if not self.model.config.is_encoder_decoder:
            return super().follow(out)
        return self.decoder(), {"encoder_hidden_states": out.language_model_outputs.encoder_last_hidden_state}, False

    def mixers(self) -> list[Mixer]:
        """In each layer of the Q-Former the queries look at each other, in some then at the patches."""
        found = []
        for layer in self.connector.encoder.layer:
            found.append(_mixer(layer.attention.attention, "latents"))
            if layer.has_cross_attention:
                found.append(_mixer(layer.crossattention.attention, "patches"))
        return found

    def _seams(self) -> Seams:
        if not self.model.config.is_encoder_decoder:
            return super()._seams()
        blocks = self.decoder().block
        return Seams(
            self.connector,
            self.argument,
            self.model.get_submodule(str(self.projection_path)),
            self.model.get_submodule(self.patches_path),
            self.model.get_input_embeddings(),
            blocks,
            [block.layer[1].EncDecAttention for block in blocks],
            self.model.language_model,
        )

    def _head(self, hidden: Tensor) -> Tensor:
        config = self.model.config.text_config
        scaled = self.model.config.is_encoder_decoder and config.scale_decoder_outputs
        return super()._head(hidden * config.d_model**-0.5 if scaled else hidden)


class InstructBlip(Blip2):
    """InstructBLIP: the Q-Former reads the question as well."""

    family = "instructblip"
    model_types = ("instructblip",)
    model_class = "InstructBlipForConditionalGeneration"
    processor_class = "InstructBlipProcessor"
    lead = QUESTION
    checkpoint = "Salesforce/instructblip-vicuna-7b"
    licence = "Llama (weights: non-commercial)"

    def call(self, text: str, image: Image.Image) -> Mapping[str, Any]:
        """Its processor takes the image first."""
        return self.processor(images=image, text=text, return_tensors="pt")  # type: ignore[no-any-return]


def _mixer(attention: Any, sees: Sees) -> Mixer:
    return Mixer(attention.query, attention.key, attention.num_attention_heads, sees)

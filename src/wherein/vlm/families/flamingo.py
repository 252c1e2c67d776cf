"""OpenFlamingo, the model that PIN was published on: our own modules (wherein.vlm.flamingo), the published weights.

Images are squashed to its square, as PIN's authors evaluate it: its own processor would cut the ends of an image off,
and the boxes that are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wherein.vlm import views
from wherein.vlm.hf import HFVLM
from wherein.vlm.mixing import Mixer
from wherein.vlm.seams import Seams


@dataclass(frozen=True)
class FlamingoProcessor:
    """What transformers would call its processor: CLIP's image processor and the language model's tokenizer."""

    image_processor: Any
    tokenizer: Any


class Flamingo(HFVLM):
    """OpenFlamingo. x_v are the patches without CLS, before CLIP's last norm: 256 rows at 224 px."""

    family = "flamingo"
    model_types = ("open_flamingo",)
    model_class = "OpenFlamingo"
    processor_class = "FlamingoProcessor"
    views = staticmethod(views.squash)
    connector_path = "perceiver"
    blocks_path = "vision_model.encoder.layers"
    patches_path = "vision_model.embeddings"
    latents = True
    interleaves = True
    example_end = "<|endofchunk|>"
    lead = "<image>"
    checkpoint = "openflamingo/OpenFlamingo-3B-vitl-mpt1b"
    licence = "MIT (weights: MPT-1B, Apache-2.0)"

    shared_prompt = "In the image is"  # nothing stands between it and the image's token

    def __init__(self, model: Any, processor: Any, name: str, size: int | None = None) -> None:
        _squash(processor.image_processor, processor.image_processor.crop_size.height)
        super().__init__(model, processor, name, size)

    def resize(self, size: int) -> None:
        """448 in the paper: bicubic interpolation of CLIP's positions."""
        self.model.interpolate_positions(size)
        _squash(self.processor.image_processor, size)

    def features_width(self) -> int:
        """D_v."""
        return int(self.model.vision_model.config.hidden_size)

    @property
    def token_dim(self) -> int:
        """The latents are as wide as the features: keys of a cross-attention, not words."""
        return self.feature_dim

    def patch(self) -> int:
        """CLIP's."""
        return int(self.model.vision_model.config.patch_size)

    def call(self, text: str, image: Image.Image) -> Mapping[str, Any]:
        """Pixels and the ids of the text, the image's token among them."""
        pixels = self.processor.image_processor(image, return_tensors="pt")
        words = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")  # a prompt begins with its image
        return {"input_ids": words["input_ids"], "attention_mask": words["attention_mask"], **pixels}

    def decoder(self) -> Any:
        """The language model with its gated cross-attention."""
        return self.model.get_decoder()

    def follow(self, out: Any) -> tuple[Any, dict[str, Tensor], bool]:
        """All text behind the image goes on looking at its latents."""
        return self.decoder(), {"perceiver_embeddings": out.perceiver_embeddings}, True

    def _seams(self) -> Seams:
        blocks = list(self.decoder().blocks)
        gated = [block.gated_cross_attn_layer for block in blocks if block.gated_cross_attn_layer is not None]
        return Seams(
            self.connector,
            patches=self.model.get_submodule(self.patches_path),
            words=self.model.get_input_embeddings(),
            layers=blocks,
            attentions=[block.attn for block in gated],
        )

    def latent_positions(self) -> NDArray[np.int64]:
        """The gated cross-attention has no other keys."""
        return np.arange(len(self.connector.latents))

    def mixers(self) -> list[Mixer]:
        """The resampler's: patches first, then the latents themselves."""
        attentions = [next(layer.children()) for layer in self.connector.layers]
        return [Mixer(each.to_q, each.to_kv, each.heads, "both", halves=2) for each in attentions]

    def _starting(self, count: int) -> dict[str, Tensor]:
        return {}

    def _head(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.model.get_output_embeddings()(hidden)
        return logits

    def _ends(self) -> list[int]:
        return [self.tokenizer.eos_token_id, self.tokenizer.convert_tokens_to_ids("<|endofchunk|>")]


def _squash(images: Any, side: int) -> None:
    """Make CLIP's image processor scale each axis to the same side, pixels, and cut nothing off."""
    images.size, images.do_center_crop = type(images.size)(height=side, width=side), False
    images.crop_size = type(images.crop_size)(height=side, width=side)

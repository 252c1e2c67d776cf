"""PaliGemma (1 and 2) and Gemma 3: SigLIP and Gemma, with an image that attends to itself in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from wherein.vlm import views
from wherein.vlm.hf import HFVLM, QUESTION


class PaliGemma(HFVLM):
    """PaliGemma and PaliGemma 2: image and prompt see each other, the answer is causal."""

    family = "paligemma"
    model_types = ("paligemma",)
    model_class = "PaliGemmaForConditionalGeneration"
    processor_class = "PaliGemmaProcessor"
    views = staticmethod(views.squash)
    blocks_path = "model.vision_tower.encoder.layers"
    patches_path = "model.vision_tower.embeddings"
    appends = False
    lead = "<image>caption en"
    opening = "<image>"
    native = "<locYYYY><locXXXX><locYYYY><locXXXX> in 0..1023, y first"
    native_prompt = "detect {phrase}\n"  # read behind the image; in training image and question saw each other
    checkpoint = "google/paligemma2-3b-pt-224"
    licence = "Gemma"

    def call(self, text: str, image: Image.Image) -> Mapping[str, Any]:
        """Its processor makes labels of everything, which would cost a loss.

        It also ends every text with a line break, which belongs behind a user's words, not between the image and them.
        """
        made = dict(super().call(text, image))
        made.pop("labels", None)
        if text != self.opening:
            return made
        end = len(self.tokenizer.encode("\n", add_special_tokens=False))
        return {name: x[:, :-end] if name != "pixel_values" else x for name, x in made.items()}

    def first_position(self) -> int:
        """It counts from one."""
        return 1


class Gemma3(HFVLM):
    """Gemma 3: 64 x 64 patches pooled to 16 x 16 tokens."""

    family = "gemma3"
    model_types = ("gemma3",)
    model_class = "Gemma3ForConditionalGeneration"
    processor_class = "Gemma3Processor"
    views = staticmethod(views.squash)
    blocks_path = "model.vision_tower.encoder.layers"
    patches_path = "model.vision_tower.embeddings"
    lead = f"<start_of_turn>user\n<start_of_image>{QUESTION}<end_of_turn>\n<start_of_turn>model\n"
    checkpoint = "google/gemma-3-4b-it"
    licence = "Gemma"

    def token(self) -> int:
        """A token is a mean over a square of patches."""
        return int(self.model.config.vision_config.image_size // self.model.config.mm_tokens_per_image**0.5)

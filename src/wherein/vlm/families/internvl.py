"""InternVL: a pixel shuffle before the projector, tiles if its processor is told so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from wherein.vlm import views
from wherein.vlm.hf import HFVLM, QUESTION


class InternVL(HFVLM):
    """InternVL 2.5 and 3 in transformers' own form. A row of x_v is a block of patches."""

    family = "internvl"
    model_types = ("internvl",)
    model_class = "InternVLForConditionalGeneration"
    processor_class = "InternVLProcessor"
    views = staticmethod(views.patches)
    blocks_path = "model.vision_tower.encoder.layer"
    patches_path = "model.vision_tower.embeddings"
    lead = f"<|im_start|>user\n<IMG_CONTEXT>\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    native = "<box>[[x0, y0, x1, y1]]</box> in 0..1000"
    native_prompt = (
        "Please provide the bounding box coordinate of the region this sentence describes: <ref>{phrase}</ref>"
    )
    checkpoint = "OpenGVLab/InternVL3-8B-hf"
    licence = "MIT"

    def features_width(self) -> int:
        """D_v: that of a whole block."""
        return int(super().features_width() / self.model.config.downsample_ratio**2)

    def call(self, text: str, image: Image.Image) -> Mapping[str, Any]:
        """Its processor cuts tiles whatever the image processor's own setting is, unless it is told."""
        tiles = bool(self.processor.image_processor.crop_to_patches)
        return self.processor(text=text, images=[image], crop_to_patches=tiles, return_tensors="pt")  # type: ignore[no-any-return]

    def patch(self) -> int:
        """A block of patches."""
        return int(self.model.config.vision_config.patch_size[0] / self.model.config.downsample_ratio)

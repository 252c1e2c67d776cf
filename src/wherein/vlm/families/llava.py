"""LLaVA and its kin: a CLIP or SigLIP encoder, an MLP projector, any language model."""

from __future__ import annotations

from wherein.vlm import views
from wherein.vlm.hf import HFVLM, QUESTION


class Llava(HFVLM):
    """LLaVA-1.5: one picture of the centre, the encoder's last but one block, CLS dropped before the projector."""

    family = "llava"
    model_types = ("llava",)
    model_class = "LlavaForConditionalGeneration"
    processor_class = "LlavaProcessor"
    views = staticmethod(views.centre_crop)
    blocks_path = "model.vision_tower.encoder.layers"
    patches_path = "model.vision_tower.embeddings"
    lead = f"USER: <image>\n{QUESTION} ASSISTANT:"
    native = "[x0, y0, x1, y1] in 0..1"
    native_prompt = "Please provide the bounding box coordinate of the region this sentence describes: {phrase}."
    checkpoint = "llava-hf/llava-1.5-7b-hf"
    licence = "Llama 2"


class LlavaNext(Llava):
    """LLaVA-NeXT: the whole image, then tiles of it; ends of rows become tokens of their own."""

    family = "llava_next"
    model_types = ("llava_next",)
    model_class = "LlavaNextForConditionalGeneration"
    processor_class = "LlavaNextProcessor"
    views = staticmethod(views.any_resolution)
    lead = f"[INST] <image>\n{QUESTION} [/INST]"
    native = native_prompt = ""
    checkpoint = "llava-hf/llava-v1.6-mistral-7b-hf"
    licence = "Apache-2.0"


class LlavaOnevision(LlavaNext):
    """LLaVA-OneVision: SigLIP, tiles, Qwen2."""

    family = "llava_onevision"
    model_types = ("llava_onevision",)
    model_class = "LlavaOnevisionForConditionalGeneration"
    processor_class = "LlavaOnevisionProcessor"
    lead = f"<|im_start|>user <image>\n{QUESTION}<|im_end|><|im_start|>assistant"
    checkpoint = "llava-hf/llava-onevision-qwen2-7b-ov-hf"

"""OpenFlamingo: CLIP, a perceiver resampler, and a language model with gated cross-attention between its blocks.

    pixels -> CLIPVisionModel -> patch features x_v -> perceiver -> latents -(gated cross-attention)-> language model

transformers has no such model. This one loads the published checkpoints and answers like a model of transformers.
"""

from wherein.vlm.flamingo.checkpoint import PUBLISHED, FlamingoConfig, load, load_tokenizer
from wherein.vlm.flamingo.model import FlamingoDecoder, FlamingoOutput, OpenFlamingo

__all__ = ["PUBLISHED", "FlamingoConfig", "FlamingoDecoder", "FlamingoOutput", "OpenFlamingo", "load", "load_tokenizer"]

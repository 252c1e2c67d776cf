"""A `PixelLM` out of parts that exist: a SAM, a vision encoder, a language model; or those of the default VLM."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, SamConfig

from wherein.errors import InputError
from wherein.methods.pixel.config import LiteConfig, PixelLMConfig
from wherein.methods.pixel.model import PixelLM
from wherein.methods.pixel.sam import resized
from wherein.vlm.default import DefaultVLM

SMALL = {"extractor_dim": 256, "extractor_out": 256, "point_dim": 256}
"""Sizes for a small language model on a CPU."""


def assemble(
    language_model: Any, sam: Any, vision: Any = None, side: int = 384, sam_encodes: bool = True, **settings: Any
) -> PixelLM:
    """A model of a language model, a `SamModel` and a further vision model of transformers, all with their weights.

    `side`: of the square that it sees, pixels; SAM's tables are resized to it, the further model keeps its own.
    `settings` are those of `PixelLMConfig`. Nothing is trained yet between the parts. The language model's weights are
    shared, not copied: they stay as they are.
    Raises InputError for parts that do not go together.
    """
    config = PixelLMConfig(
        sam_config=at_side(sam.config, side),
        vision_config=None if vision is None else copy.deepcopy(vision.config),
        text_config=copy.deepcopy(language_model.config),
        sam_encodes=sam_encodes,
        **settings,
    )
    model: Any = PixelLM(config, _sharing(language_model))
    weights = sam.state_dict()
    filled: list[tuple[str, Any]] = [("prompt_encoder", model.prompt_encoder)]
    if sam_encodes:
        filled += [("vision_encoder", model.encoders[0].model), ("mask_decoder", model.mask_decoder)]
    for name, part in filled:
        own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        own = resized(own, part.state_dict())
        part.load_state_dict(own)
    if vision is not None:
        model.encoders[-1].model.load_state_dict(vision.state_dict())
    return model  # type: ignore[no-any-return]


def of_default(vlm: DefaultVLM, **settings: Any) -> PixelLM:
    """A model of the default VLM's vision encoder and language model, with SAM's way of saying where, untrained.

    They share their weights, which stay as they are, and so what was worked out of an image for the one (its x_v)
    serves the other: a list with it is the `features` of `PixelLM.forward`. Its visual tokens carry what the default
    VLM's connector reads in the cells.
    """
    (side, _), (rows, _) = vlm.size, vlm.grid
    config = PixelLMConfig(
        sam_config=SamConfig(prompt_encoder_config={"image_size": side, "patch_size": side // rows}),
        vision_config=LiteConfig(image_size=side),
        text_config=copy.deepcopy(vlm.language_model.config),
        sam_encodes=False,
        vision_trains=False,
        fit="squash",
        **{"lora_targets": ("q_proj", "v_proj"), "carries": True, **SMALL, **settings},
    )
    model: Any = PixelLM(config, _sharing(vlm.language_model), vlm.tokens if config.carries else None)
    model.encoders[0].model.load_state_dict(vlm.encoder.state_dict(), assign=True)
    generator = torch.Generator().manual_seed(0)  # without a SAM its prompts mean nothing yet: the same each time
    with torch.no_grad():
        for parameter in model.prompt_encoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.to(vlm.device)  # type: ignore[no-any-return]


def at_side(config: Any, side: int) -> PretrainedConfig:
    """A SAM's configuration for pictures of this side, pixels. Raises InputError where its patches do not fill it."""
    patch = config.vision_config.patch_size
    if side % patch:
        raise InputError(f"SAM's patches of {patch} pixels do not fill a picture of {side}: choose a multiple.")
    settings = config.to_dict()
    settings["vision_config"]["image_size"] = settings["prompt_encoder_config"]["image_size"] = side
    settings["prompt_encoder_config"].pop("image_embedding_size", None)
    return SamConfig(**settings)


def _sharing(model: nn.Module) -> nn.Module:
    """A model of its own with the weights of this one, in its memory: what is put into the one is not in the other."""
    own = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, own)

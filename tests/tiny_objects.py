"""Stable Diffusion, CLIP, CLIPSeg and U2-Net with a few thousand random weights, each saved as a checkpoint is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    ViTImageProcessorPil,
)

WIDTH, POSITIONS = 32, 77
END = "<|endoftext|>"


def tokenizer() -> Any:
    """CLIP's, with a token for each byte, inside a word and at its end."""
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", END]
    return CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=POSITIONS, pad_token=END
    )


def text_config() -> dict[str, Any]:
    ids = {"bos_token_id": 188, "eos_token_id": 189, "pad_token_id": 189, "vocab_size": 190}
    return {**ids, "hidden_size": WIDTH, "max_position_embeddings": POSITIONS, **_layers(2)}


def _layers(count: int) -> dict[str, Any]:
    return {"intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": count, "projection_dim": WIDTH}


def diffusion(folder: Path, refuses: bool | None = None) -> Path:
    """A Stable Diffusion of 32 pixels; its safety checker refuses all pictures, or none; without one by default."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        norm_num_groups=8,
        attention_head_dim=8,
    )
    vae = AutoencoderKL(
        block_out_channels=[16, 32],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        norm_num_groups=8,
    )
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
    checker = None if refuses is None else safety_checker(refuses)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(CLIPTextConfig(**text_config())),
        tokenizer=tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=checker,
        feature_extractor=checker and CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size=30),
        requires_safety_checker=checker is not None,
    ).save_pretrained(folder)
    return folder


def safety_checker(refuses: bool) -> Any:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=text_config(), vision_config=vision_config()))
    checker.concept_embeds_weights.data.fill_(-2.0 if refuses else 2.0)  # a cosine is always above -2, never above 2
    checker.special_care_embeds_weights.data.fill_(2.0)
    return checker


def vision_config() -> dict[str, Any]:
    return {"hidden_size": WIDTH, "image_size": 30, "patch_size": 6, **_layers(2)}


def clip(folder: Path) -> Path:
    torch.manual_seed(1)
    config = CLIPConfig(text_config=text_config(), vision_config=vision_config(), projection_dim=WIDTH)
    CLIPModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size=30).save_pretrained(folder)
    return folder


def clipseg(folder: Path) -> Path:
    """Its weights are random, its last bias too: about half of a picture's pixels are the object."""
    torch.manual_seed(2)
    config = CLIPSegConfig(
        text_config=text_config(),
        vision_config={**vision_config(), **_layers(3)},
        projection_dim=WIDTH,
        reduce_dim=16,
        extract_layers=[0, 1, 2],
        decoder_num_attention_heads=4,
        decoder_intermediate_size=32,
        conditional_layer=0,
        initializer_factor=3.0,
    )
    CLIPSegForImageSegmentation(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 30, "width": 30}).save_pretrained(folder)
    return folder


def u2net_shapes(middle: int, out: int) -> dict[str, tuple[int, ...]]:
    """Every weight and bias of the published checkpoints, which are all of one width inside (16) and outside (64) in
    u2netp.pth; they are from before batch norms counted their batches."""
    shapes: dict[str, tuple[int, ...]] = {"outconv.weight": (1, 6, 1, 1), "outconv.bias": (1,)}
    stages = {"1": 7, "2": 6, "3": 5, "4": 4, "5": 4, "6": 4, "5d": 4, "4d": 4, "3d": 5, "2d": 6, "1d": 7}
    for stage, depth in stages.items():
        given = 3 if stage == "1" else 2 * out if stage.endswith("d") else out
        layers = {"in": (given, out), "1": (out, middle), "1d": (2 * middle, out)}
        layers |= {str(order): (middle, middle) for order in range(2, depth + 1)}
        layers |= {f"{order}d": (2 * middle, middle) for order in range(2, depth)}
        for layer, (before, after) in layers.items():
            name = f"stage{stage}.rebnconv{layer}"
            shapes |= {f"{name}.conv_s1.weight": (after, before, 3, 3), f"{name}.conv_s1.bias": (after,)}
            shapes |= {f"{name}.bn_s1.{part}": (after,) for part in ("weight", "bias", "running_mean", "running_var")}
    for side in range(1, 7):
        shapes |= {f"side{side}.weight": (1, out, 3, 3), f"side{side}.bias": (1,)}
    return shapes


def u2net(file: Path) -> Path:
    """A U2-Net two and three channels wide whose salience varies over a picture, as .pth or .safetensors."""
    random = torch.Generator().manual_seed(3)
    state = {}
    for name, shape in u2net_shapes(2, 3).items():
        values = torch.randn(shape, generator=random)
        state[name] = values.abs() + 0.5 if name.endswith("running_var") else values
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=False)  # as old as the published ones
    return file
